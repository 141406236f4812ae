import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from tfrec_feedback.data.sources.simulated import simulate
from tfrec_feedback.metrics import auc, expected_calibration_error

DAY_MS = 24 * 3_600_000
MONDAY_MS = 1_704_067_200_000


@pytest.fixture(scope="module")
def log():
    return simulate()


def test_equal_seeds_give_equal_logs_and_others_do_not():
    first, second, other = (simulate(60, 80, 3, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.events, second.events)
    pd.testing.assert_frame_equal(first.truth, second.truth)
    assert not first.events.item_id.head(50).equals(other.events.item_id.head(50))


def test_columns_are_the_canonical_ones(log):
    integers = ["user_id", "item_id", "timestamp", "click", "like", "dislike", "context_hour"]
    integers += ["context_weekday", "item_category", "item_author_id"]
    assert (log.events[integers].dtypes == np.int64).all()
    assert log.events.item_duration.dtype == np.float64
    strings = log.events[["request_id", "user_age_band", "user_activity"]]
    assert strings.map(lambda value: isinstance(value, str)).all(axis=None)
    assert all(
        isinstance(tags, list) and 1 <= len(tags) <= 4 and len(set(tags)) == len(tags)
        for tags in log.events.item_tags
    )
    assert set(log.events.columns) == {*integers, *strings.columns, "item_duration", "item_tags"}
    assert log.events.user_id.min() == log.events.item_id.min() == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_users", "num_items"), [(2000, 1000), (300, 300)])
def test_rates_stay_in_the_promised_ranges(num_users, num_items, seed):
    events = simulate(num_users, num_items, seed=seed).events
    assert 0.25 < events.click.mean() < 0.40
    assert 0.02 < events.like.mean() < 0.05
    assert 0.002 < events.dislike.mean() < 0.01


def test_the_default_log_has_the_promised_size(log):
    assert 150_000 < len(log.events) < 200_000


def test_truth_belongs_to_its_events(log):
    events, truth = log.events, log.truth
    assert truth.index.equals(events.index)
    assert (truth.false_click == (events.click == 1) & (truth.satisfied == 0)).all()
    assert (truth.missed == (events.click == 0) & (truth.satisfied == 1)).all()
    assert (truth.satisfied[events.like == 1] == 1).all() and events.click[events.like == 1].all()
    assert (truth.satisfied[events.dislike == 1] == 0).all()
    assert truth.clickbait.groupby(events.item_id).nunique().eq(1).all()
    assert 0.1 < truth.false_click.sum() / events.click.sum() < 0.4
    assert 0.05 < truth.missed.mean() < 0.2


def test_true_probabilities_are_calibrated(log):
    events, truth = log.events, log.truth
    assert expected_calibration_error(events.click, truth.click_probability) < 0.006
    assert expected_calibration_error(events.dislike, truth.dislike_probability) < 0.001
    assert expected_calibration_error(truth.satisfied, truth.preference) < 0.006


def test_the_true_probabilities_are_the_score_to_reach(log):
    events, truth = log.events, log.truth
    popularity = events.groupby("item_id").click.transform("sum")
    assert auc(events.click, truth.click_probability) > auc(events.click, popularity) + 0.1
    assert auc(events.dislike, truth.dislike_probability) > 0.8


def test_clickbait_draws_clicks_without_satisfying(log):
    high = log.truth.clickbait > 0.6
    assert log.truth.false_click[high].mean() > 3 * log.truth.false_click[~high].mean()
    assert log.events.dislike[high].mean() > log.events.dislike[~high].mean()


def test_rows_are_sorted_by_time_and_lie_within_the_days(log):
    events = log.events
    assert events.timestamp.is_monotonic_increasing
    assert events.timestamp.between(MONDAY_MS, MONDAY_MS + 14 * DAY_MS - 1).all()
    assert (events.timestamp - MONDAY_MS).floordiv(DAY_MS).nunique() == 14
    assert (events.context_hour == events.timestamp // 3_600_000 % 24).all()
    moment = pd.to_datetime(events.timestamp, unit="ms")
    assert (events.context_weekday == moment.dt.dayofweek).all()


def test_rows_of_a_request_share_user_and_time_and_show_distinct_items(log):
    requests = log.events.groupby("request_id")
    assert requests.size().between(4, 10).all()
    assert requests[["user_id", "timestamp"]].nunique().eq(1).all(axis=None)
    assert (requests.item_id.nunique() == requests.size()).all()
    # One request a moment and user: time alone tells what came before.
    assert log.events.groupby(["user_id", "timestamp"]).request_id.nunique().eq(1).all()
    # A request's rows are neighbours, in the order of their positions.
    assert (log.events.request_id != log.events.request_id.shift()).sum() == len(requests)
    assert (log.truth.position == requests.cumcount()).all()


def test_features_of_users_and_items_are_constant(log):
    by_user = log.events.groupby("user_id")[["user_age_band", "user_activity"]]
    by_item = log.events.groupby("item_id")[["item_category", "item_author_id", "item_duration"]]
    assert by_user.nunique().eq(1).all(axis=None) and by_item.nunique().eq(1).all(axis=None)


@pytest.mark.parametrize("feature", ["item_category", "item_author_id", "item_tags"])
def test_what_a_user_clicked_before_tells_which_features_he_likes(log, feature):
    events = log.events.assign(row=np.arange(len(log.events))).explode(feature)
    early = events.timestamp < MONDAY_MS + 10 * DAY_MS
    rate = events[early].groupby(["user_age_band", feature], observed=True).click.mean()
    late = events[~early].merge(rate.rename("rate"), on=["user_age_band", feature], how="left")
    score = late.groupby("row").agg(click=("click", "first"), rate=("rate", "mean"))
    assert auc(score.click, score.rate.fillna(0.3)) > 0.53


def count_before(events, flag, keys, days):
    """Counts flagged rows of equal keys before each row's request, not longer ago than `days`."""
    group = events.groupby(keys).ngroup().to_numpy() * (1000 * DAY_MS)
    now = group + events.timestamp.to_numpy() - MONDAY_MS
    flagged = np.sort(now[events[flag] == 1])
    since = np.maximum(now - days * DAY_MS, group)
    return np.searchsorted(flagged, now) - np.searchsorted(flagged, since)


def test_past_counts_stop_before_the_request():
    events = pd.DataFrame(
        {"user_id": [1, 1, 2, 1], "click": [1, 1, 1, 0], "timestamp": [0, 0, DAY_MS, 2 * DAY_MS]}
    )
    events["timestamp"] += MONDAY_MS
    assert count_before(events, "click", ["user_id"], days=5).tolist() == [0, 0, 0, 2]
    assert count_before(events, "click", ["user_id"], days=1).tolist() == [0, 0, 0, 0]


def late_auc(events, flag, columns):
    """AUC on days 10 to 13 of a logistic regression fitted on days 6 to 9."""
    day = ((events.timestamp - MONDAY_MS) // DAY_MS).to_numpy()
    features = np.log1p(np.column_stack(columns))
    fit, judge = (day >= 6) & (day < 10), day >= 10
    features = (features - features[fit].mean(axis=0)) / features[fit].std(axis=0)
    model = LogisticRegression().fit(features[fit], events[flag][fit])
    return auc(events[flag][judge], model.decision_function(features[judge]))


def early_rate(events, flag, keys, prior):
    """Rate of a flag in days 0 to 5, drawn towards the overall rate by `prior` rows."""
    early = events[events.timestamp < MONDAY_MS + 6 * DAY_MS]
    mean = early[flag].mean()
    cells = early.groupby(keys)[flag].agg(["sum", "size"])
    rate = (cells["sum"] + prior * mean) / (cells["size"] + prior)
    return (
        events[keys].merge(rate.rename("rate").reset_index(), on=keys, how="left").rate.fillna(mean)
    )


def test_recent_clicks_and_unclicks_tell_more_than_user_item_and_their_long_term_taste(log):
    events = log.events.assign(unclick=1 - log.events.click)
    pair = ["user_id", "item_category"]
    known = [
        early_rate(events, "click", keys, prior=5) for keys in (["user_id"], ["item_id"], pair)
    ]
    recent = [count_before(events, flag, pair, days=1) for flag in ("click", "unclick")]
    assert late_auc(events, "click", known + recent) > late_auc(events, "click", known) + 0.015


def test_past_dislikes_tell_future_dislikes(log):
    events = log.events
    pair = ["user_id", "item_category"]
    known = [
        early_rate(events, "dislike", keys, prior=100) for keys in (["user_id"], ["item_id"], pair)
    ]
    past = [count_before(events, "dislike", keys, days=14) for keys in (["user_id"], pair)]
    assert late_auc(events, "dislike", known + past) > late_auc(events, "dislike", known) + 0.03
    before = past[1] > 0
    assert events.dislike[before].mean() > 5 * events.dislike[~before].mean()
    # Still shown, though less clicked.
    assert before.sum() > 1000
    assert events.click[before].mean() < 0.9 * events.click[~before].mean()


def test_a_catalogue_hardly_larger_than_a_request_works():
    events = simulate(20, 3, 5, candidates_per_request=(3, 3), num_categories=2).events
    assert (events.groupby("request_id").item_id.nunique() == 3).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_users": 0}, "must be positive"),
        ({"requests_per_user_day": 0.0}, "must be positive"),
        ({"candidates_per_request": (5, 4)}, "fewest <= most <= num_items"),
        ({"num_items": 9}, "fewest <= most <= num_items = 9"),
        ({"num_users": 1, "num_days": 1, "requests_per_user_day": 1e-9}, "No user made a request"),
    ],
)
def test_worlds_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        simulate(**changes)
