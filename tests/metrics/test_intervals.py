import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrec_feedback.metrics import (
    auc,
    auc_interval,
    delong_test,
    grouped_auc,
    grouped_auc_difference,
    grouped_auc_interval,
    intervals,
)


def structural_components(labels, scores):
    """DeLong's V10 and V01, straight from the matrix of all pairs."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    kernel = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return kernel.mean(axis=1), kernel.mean(axis=0)


def covariance(labels, *score_sets):
    """DeLong's covariance matrix of the AUCs: S10 / P + S01 / N."""
    parts = [structural_components(labels, scores) for scores in score_sets]
    tens, ones = np.array([p[0] for p in parts]), np.array([p[1] for p in parts])
    return np.cov(tens) / tens.shape[1] + np.cov(ones) / ones.shape[1]


def sample(seed, size=200, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    return labels, rng.normal(size=size) + shift * labels


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_the_interval_uses_delongs_variance_of_the_pairwise_components(seed, decimals):
    labels, scores = sample(seed, size=30)
    scores = np.round(scores, decimals)
    value, low, high = auc_interval(labels, scores, confidence=0.9)
    assert value == pytest.approx(auc(labels, scores), abs=1e-12)
    if value == 1.0:
        assert math.isnan(low) and math.isnan(high)
        return
    error = math.sqrt(covariance(labels, scores)) / (value * (1 - value))
    reach = NormalDist().inv_cdf(0.95) * error
    logit = math.log(value / (1 - value))
    expected = [1 / (1 + math.exp(-(logit + sign * reach))) for sign in (-1, 1)]
    np.testing.assert_allclose([low, high], expected, rtol=1e-9)


def test_an_interval_that_can_be_checked_by_hand():
    # Components of both classes are (2/3, 1, 1): variance of the AUC 2 * (1/27)/3 = 2/81.
    value, low, high = auc_interval([0, 0, 1, 0, 1, 1], [1, 2, 3, 4, 5, 6], confidence=0.95)
    reach = 1.959964 * math.sqrt(2 / 81) * 81 / 8  # AUC 8/9, odds 8, slope of the logit 81/8
    assert value == pytest.approx(8 / 9)
    assert low == pytest.approx(8 * math.exp(-reach) / (1 + 8 * math.exp(-reach)), abs=1e-6)
    assert high == pytest.approx(8 * math.exp(reach) / (1 + 8 * math.exp(reach)), abs=1e-6)


def test_the_interval_covers_the_true_auc_as_often_as_it_says():
    truth = NormalDist().cdf(1.0 / math.sqrt(2))  # Two unit normals one apart: 0.7602.
    inside = 0
    for seed in range(400):
        _, low, high = auc_interval(*sample(seed, size=120))
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_more_confidence_or_fewer_rows_widen_the_interval():
    labels, scores = sample(0)
    wide, narrow = auc_interval(labels, scores, 0.99), auc_interval(labels, scores, 0.5)
    few = auc_interval(labels[:40], scores[:40], 0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert few.high - few.low > narrow.high - narrow.low


def test_where_the_data_do_not_tell_the_variance_the_ends_are_nan():
    for labels, scores in (([0, 0, 1], [1, 3, 2]), ([0, 0, 1, 1], [1, 2, 3, 4])):
        value, low, high = auc_interval(labels, scores)
        assert value == auc(labels, scores)
        assert math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0]])
def test_without_both_classes_nothing_is_known(labels):
    assert all(math.isnan(part) for part in auc_interval(labels, np.arange(len(labels))))
    assert math.isnan(delong_test(labels, [0] * len(labels), [1] * len(labels)).p_value)


def test_constant_scores_are_a_coin_without_doubt():
    assert auc_interval([0, 1, 0, 1], [5, 5, 5, 5]) == (0.5, 0.5, 0.5)


@given(st.integers(0, 10_000), st.integers(1, 2))
def test_the_paired_test_uses_delongs_covariance(seed, decimals):
    labels, scores_a = sample(seed, size=40)
    scores_b = np.round(scores_a + np.random.default_rng(seed + 1).normal(size=40), decimals)
    auc_a, auc_b, p_value = delong_test(labels, scores_a, scores_b)
    matrix = covariance(labels, scores_a, scores_b)
    z = (auc_a - auc_b) / math.sqrt(matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1])
    assert (auc_a, auc_b) == pytest.approx((auc(labels, scores_a), auc(labels, scores_b)))
    assert p_value == pytest.approx(2 * NormalDist().cdf(-abs(z)), rel=1e-6)


def test_models_that_rank_alike_do_not_differ():
    labels, scores = sample(3)
    assert delong_test(labels, scores, np.exp(scores)).p_value == 1.0


def test_a_difference_without_variance_has_no_p_value():
    assert math.isnan(delong_test([0, 0, 1, 1], [1, 2, 3, 4], [0, 0, 0, 0]).p_value)


def test_under_equal_models_small_p_values_are_as_rare_as_they_say():
    rejected = 0
    for seed in range(400):
        labels, scores = sample(seed, size=150)
        noise = np.random.default_rng(10_000 + seed).normal(size=(2, 150))
        rejected += delong_test(labels, scores + noise[0], scores + noise[1]).p_value < 0.1
    assert 0.06 <= rejected / 400 <= 0.14


def grouped_sample(seed, num_users=60):
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 0, 0, 1, 1, 1], num_users)
    users = np.repeat(np.arange(num_users), 6)
    return (
        labels,
        rng.normal(size=len(labels)) + labels + 5 * rng.normal(size=num_users)[users],
        users,
    )


def test_the_bootstrap_over_users_covers_the_true_grouped_auc():
    truth = NormalDist().cdf(1.0 / math.sqrt(2))
    inside = 0
    for seed in range(200):
        _, low, high = grouped_auc_interval(*grouped_sample(seed), num_resamples=200)
        inside += low <= truth <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_the_bootstrap_matches_a_loop_that_draws_users_one_by_one():
    labels, scores, users = grouped_sample(0, num_users=25)
    labels[:40] = np.arange(40) % 3 == 0
    rng, values = np.random.default_rng(5), []
    rows = [np.flatnonzero(users == user) for user in range(25)]
    for _ in range(1500):
        drawn = [rows[user] for user in rng.integers(25, size=25)]
        names = np.repeat(np.arange(25), [len(d) for d in drawn])
        every = np.concatenate(drawn)
        values.append(grouped_auc(labels[every], scores[every], names))
    result = grouped_auc_interval(labels, scores, users, num_resamples=4000)
    assert result.value == grouped_auc(labels, scores, users)
    np.testing.assert_allclose(result[1:], np.quantile(values, [0.025, 0.975]), atol=0.02)


def test_equal_seeds_give_equal_intervals_however_the_draws_are_cut(monkeypatch):
    args = grouped_sample(1)
    first = grouped_auc_interval(*args, seed=4)
    assert grouped_auc_interval(*args, seed=4) == first
    monkeypatch.setattr(intervals, "_MAX_DRAWS", 100)
    assert grouped_auc_interval(*args, seed=4) == pytest.approx(first, rel=1e-12)
    assert grouped_auc_interval(*args, seed=5) != first


def test_one_usable_group_gives_no_interval():
    value, low, high = grouped_auc_interval([0, 1, 1], [1, 2, 3], ["a", "a", "b"])
    assert value == 1.0
    assert math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share_and_not_percent(confidence):
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        auc_interval([0, 1], [0, 1], confidence)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        grouped_auc_interval([0, 1], [0, 1], [0, 0], confidence=confidence)


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        grouped_auc_interval([0, 1], [0, 1], [0, 0], num_resamples=0)


def test_the_difference_of_grouped_aucs_is_paired():
    labels, users = np.tile([0, 1], 40), np.repeat(np.arange(20), 4)
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.normal(size=20) * 3, 4)  # some users are hard for both models
    base = rng.normal(size=80) + labels * hard
    other = base + 0.05 * rng.normal(size=80)
    difference = grouped_auc_difference(labels, base, other, users)
    expected = grouped_auc(labels, base, users) - grouped_auc(labels, other, users)
    assert difference.value == pytest.approx(expected)
    alone = grouped_auc_interval(labels, base, users)
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)
    same = grouped_auc_difference(labels, base, base, users)
    assert tuple(same) == (0.0, 0.0, 0.0)
