import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.conformance import perturbed
from tfrec_feedback import full_ranking
from tfrec_feedback.data.interaction_dataset import InteractionTable, Pairs
from tfrec_feedback.full_ranking import (
    RankedUsers,
    compare_rankings,
    rank_catalogue,
    ranking_means,
    ranking_report,
    sparsity_groups,
)
from tfrec_feedback.metrics import ndcg_at_k, recall_at_k
from tfrec_feedback.models import build_model
from tfrec_feedback.schema import Feature, FeedbackSequence, Schema, Vocabulary

USERS, ITEMS = 7, 9


def schema():
    return Schema(
        context=(Feature("user_id", Vocabulary(tokens=tuple(range(USERS)), dtype="int64")),),
        candidate=(Feature("item_id", Vocabulary(tokens=tuple(range(ITEMS)), dtype="int64")),),
        histories=(FeedbackSequence("click", ("item_id",), max_length=ITEMS),),
    )


def pairs(rng, count, taken=frozenset()):
    """Random pairs that are not taken; the last user has none."""
    free = [(u, i) for u in range(USERS - 1) for i in range(ITEMS) if (u, i) not in taken]
    chosen = [free[n] for n in rng.permutation(len(free))[:count]]
    users, items = (np.array(column, np.int32) for column in zip(*chosen, strict=True))
    return Pairs(users, items, np.ones(count, bool))


def known(of):
    return set(zip(of.users.tolist(), of.items.tolist(), strict=True))


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    train = pairs(rng, 20)
    validation = pairs(rng, 8, known(train))
    test = pairs(rng, 18, known(train))  # some of them are in validation as well
    assert known(validation) & known(test)
    splits = {"train": train, "validation": validation, "test": test}
    return InteractionTable(splits, USERS, ITEMS)


def model_of(name):
    tf.keras.utils.set_random_seed(0)
    return perturbed(build_model(name, schema(), embedding_dim=3))


def scores_of(model, table):
    """Every user's score of every item, by one ordinary call."""
    lists = [table.positives.of(user).tolist() for user in range(USERS)]
    longest = max(map(len, lists))
    features = {
        "user_id": tf.range(USERS, dtype=tf.int64),
        "item_id": tf.tile(tf.range(ITEMS, dtype=tf.int64)[tf.newaxis], [USERS, 1]),
        "num_candidates": tf.fill([USERS], np.int64(ITEMS)),
        "click_item_id": tf.constant([row + [0] * (longest - len(row)) for row in lists], tf.int64),
        "click_length": tf.constant([len(row) for row in lists], tf.int64),
    }
    return model(features)["ctr"].numpy()


@pytest.mark.parametrize("name", ["gmf", "neumf", "cdae"])
@pytest.mark.parametrize("at_once", [1, 20, 10**6])
def test_rankings_are_those_of_sorting_all_scores(name, at_once, table, monkeypatch):
    monkeypatch.setattr(full_ranking, "SCORES_AT_ONCE", at_once)
    model = model_of(name)
    ranked = rank_catalogue(model, table, "test", k=4)
    scores = scores_of(model, table)
    excluded = known(table.split("train")) | known(table.split("validation"))
    relevant = known(table.split("test")) - excluded
    assert ranked.users.tolist() == sorted({user for user, _ in relevant})
    means = {f"{m}_{k}": [] for k in (1, 4) for m in ("recall", "ndcg")}
    for row, user in enumerate(ranked.users.tolist()):
        left = [item for item in range(ITEMS) if (user, item) not in excluded]
        best = sorted(left, key=lambda item: -scores[user, item])[:4]
        assert ranked.ranked[row].tolist() == best + [-1] * (4 - len(best))
        wanted = {item for of, item in relevant if of == user}
        assert ranked.num_relevant[row] == len(wanted)
        for k in (1, 4):
            means[f"recall_{k}"].append(recall_at_k(best, wanted, k))
            means[f"ndcg_{k}"].append(ndcg_at_k(best, wanted, k))
    expected = {name: pytest.approx(np.mean(values)) for name, values in means.items()}
    assert ranking_means(ranked, (1, 4)) == expected


def test_validation_is_ranked_against_all_but_train(table):
    model = model_of("gmf")
    ranked = rank_catalogue(model, table, "validation", k=ITEMS)
    for user, row in zip(ranked.users, ranked.ranked, strict=True):
        assert set(row.tolist()) - {-1} == set(range(ITEMS)) - set(table.positives.of(user))
    alone = rank_catalogue(model, table, "test", k=2, exclude=["train"])
    assert alone.num_relevant.sum() == len(table.split("test"))


def test_equal_scores_are_ranked_by_item(table):
    model = model_of("gmf")
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    ranked = rank_catalogue(model, table, "validation", k=ITEMS).ranked
    for row in ranked:
        shown = row[row >= 0]
        assert (np.diff(shown) > 0).all()


def test_more_than_there_is_to_rank_is_no_hit(table):
    ranked = rank_catalogue(model_of("gmf"), table, "test", k=50)
    assert ranked.ranked.shape == ranked.hits.shape == (len(ranked.users), 50)
    assert (ranked.ranked[:, ITEMS:] == -1).all()
    assert not ranked.hits[:, ITEMS:].any()
    assert ranking_means(ranked, [50])["recall_50"] == 1.0
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        rank_catalogue(model_of("gmf"), table, "test", k=0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 5))
def test_sparsity_groups_hold_equally_many_interactions(activity, num_groups):
    activity = np.array(activity)
    groups = sparsity_groups(activity, num_groups)
    assert ((groups >= 0) & (groups < num_groups)).all()
    order = np.lexsort((groups, activity))
    assert (np.diff(groups[order]) >= 0).all(), "the more active, the later the group"
    totals = np.bincount(groups, activity, minlength=num_groups)
    assert totals.max() <= activity.sum() / num_groups + activity.max()


def ranked_users(hits):
    hits = np.array(hits, bool)
    size = len(hits)
    return RankedUsers(np.arange(size), np.zeros(hits.shape, int), hits, np.full(size, 2))


def test_the_report_has_intervals_and_means_by_activity():
    ranked = ranked_users([[1, 0], [0, 0], [1, 1], [0, 1]])
    report = ranking_report(ranked, np.array([1, 1, 8, 2]), [2])
    assert report["users"] == 4
    recall = report["metrics"]["recall_2"]
    assert recall["value"] == 0.5
    assert recall["low"] < 0.5 < recall["high"]
    # Three users have a third of the interactions, one has the rest.
    assert [group["users"] for group in report["groups"]] == [3, 1]
    assert [group["recall_2"] for group in report["groups"]] == [1 / 3, 1.0]
    assert [group["largest_activity"] for group in report["groups"]] == [2, 8]


def test_two_rankings_are_compared_user_by_user():
    worse = ranked_users([[1, 0], [0, 0], [1, 0], [0, 1]] * 5)
    better = ranked_users([[1, 1], [0, 1], [1, 1], [1, 1]] * 5)
    found = compare_rankings(better, worse, [2])["recall_2"]
    assert found["value"] == 0.5
    assert found["p_value"] < 0.01
    with pytest.raises(ValueError, match="not ranked on the same users"):
        compare_rankings(better, ranked_users([[1, 0]]), [2])
