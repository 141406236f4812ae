import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tfrec_feedback.metrics import mean_interval, paired_user_test, user_means


def sample(seed, users=80, gap=0.0):
    rng = np.random.default_rng(seed)
    hard = rng.random(users)  # some users are hard for both models
    return hard + 0.1 * rng.normal(size=users) + gap, hard + 0.1 * rng.normal(size=users)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    inside = 0
    for seed in range(300):
        values = np.random.default_rng(seed).exponential(size=100)
        _, low, high = mean_interval(values, seed=seed)
        inside += low <= 1.0 <= high
    assert 0.89 <= inside / 300 <= 0.98


def test_the_interval_is_about_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(size=400)
    found = mean_interval(values, 0.9, num_resamples=4000)
    reach = 1.645 * values.std() / 20
    assert found.value == values.mean()
    np.testing.assert_allclose(found[1:], values.mean() + [-reach, reach], atol=0.006)


def test_the_difference_is_paired():
    a, b = sample(1, gap=0.05)
    found = paired_user_test(a, b)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    low, high = found.interval
    assert low < found.difference < high
    alone = mean_interval(a)
    assert high - low < 0.7 * (alone.high - alone.low)
    swapped = paired_user_test(b, a)
    assert swapped.difference == -found.difference
    np.testing.assert_allclose(swapped.interval, [-high, -low])


def test_the_p_value_is_the_share_of_signs_that_give_as_much():
    a, b = np.array([0.5, 1.0, 0.3, 0.0, 0.9, 0.4]), np.array([0.0, 0.5, 0.0, 0.25, 0.1, 0.4])
    d = a - b
    flips = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=6)]
    exact = np.mean(np.array(flips) >= abs(d.sum()) - 1e-12)
    assert paired_user_test(a, b, num_flips=40_000).p_value == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize(
    ("differences", "exact"),
    [([0.3, 1.0, 0.1, 23 / 30, 8 / 15], 2 / 32), ([-2.2, -3.0, -3.2, -0.3, 2.2], 8 / 32)],
)
def test_signs_that_give_exactly_as_much_count_whatever_their_rounding(differences, exact):
    found = paired_user_test(differences, np.zeros(5))
    assert found.p_value == pytest.approx(exact, abs=0.01)


def test_the_p_value_is_near_that_of_a_t_test_on_many_users():
    a, b = sample(2, users=500, gap=0.006)
    expected = stats.ttest_rel(a, b).pvalue
    assert 0.001 < expected < 0.5
    assert paired_user_test(a, b).p_value == pytest.approx(expected, abs=0.02)


def test_under_equal_models_small_p_values_are_as_rare_as_they_say():
    rejected = sum(
        paired_user_test(*sample(seed), num_flips=500).p_value < 0.1 for seed in range(300)
    )
    assert 0.05 <= rejected / 300 <= 0.15


def test_a_clear_difference_has_the_smallest_p_value_there_is():
    a, b = sample(3, gap=1.0)
    assert paired_user_test(a, b, num_flips=999).p_value == 1 / 1000


def test_users_without_a_difference_change_no_p_value():
    a, b = sample(4, users=20, gap=0.05)
    longer = np.append(a, np.ones(50)), np.append(b, np.ones(50))
    assert paired_user_test(*longer).p_value == paired_user_test(a, b).p_value


def test_models_that_agree_on_every_user_do_not_differ():
    found = paired_user_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert found == (0.0, (0.0, 0.0), 1.0)


def test_one_user_gives_no_interval():
    value, low, high = mean_interval([0.5])
    assert value == 0.5 and math.isnan(low) and math.isnan(high)
    found = paired_user_test([1.0], [0.5])
    assert found.difference == 0.5 and math.isnan(found.interval[0]) and found.p_value == 1.0


def test_equal_seeds_give_equal_results_and_other_seeds_do_not():
    a, b = sample(5, gap=0.01)
    first = paired_user_test(a, b, seed=4)
    assert paired_user_test(a, b, seed=4) == first != paired_user_test(a, b, seed=5)


def test_what_does_not_fit_into_memory_is_drawn_in_parts(monkeypatch):
    a, b = sample(6, gap=0.01)
    whole = paired_user_test(a, b)
    monkeypatch.setattr(user_means, "_MAX_DRAWS", 7 * 80)
    assert paired_user_test(a, b).p_value == pytest.approx(whole.p_value, abs=0.02)
    np.testing.assert_allclose(paired_user_test(a, b).interval, whole.interval, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"b": [1.0]}, "a and b need the same users, got 2 and 1"),
        ({"a": [], "b": []}, "a needs at least one user"),
        ({"a": [np.nan, 1.0]}, "a must be finite; leave users without a value out"),
        ({"a": [[1.0, 2.0]]}, "a must be one-dimensional"),
        ({"confidence": 95}, "confidence must lie between 0 and 1"),
        ({"num_flips": 0}, "num_flips must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_user_test(**{"a": [1.0, 2.0], "b": [1.0, 3.0], **arguments})


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        mean_interval([1.0, 2.0], num_resamples=0)
