"""The draws that intervals and p-values over users share."""

import numpy as np
import pytest

from tfrec_feedback.metrics.intervals import bootstrap_means, bootstrap_p_values


def test_two_groups_are_drawn_both_or_one_of_them_twice():
    # Weighted means of values 0 and 4 with weights 1 and 3: 0, (0 + 12) / 4 = 3, or 4.
    means = bootstrap_means(np.array([[0.0], [4.0]]), np.array([1.0, 3.0]), 4000, seed=0)
    values, counts = np.unique(means, return_counts=True)
    assert values.tolist() == [0.0, 3.0, 4.0]
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)


def test_all_columns_are_of_the_same_draws():
    values = np.random.default_rng(0).normal(size=20)
    columns = np.stack([values, values + 1.0, -values], axis=1)
    means = bootstrap_means(columns, np.ones(20), 50, seed=3)
    assert means.shape == (50, 3)
    np.testing.assert_allclose(means[:, 1], means[:, 0] + 1.0)
    np.testing.assert_allclose(means[:, 2], -means[:, 0])


def test_p_values_count_the_draws_on_the_rarer_side():
    # One of nine draws below zero: 2 (1 + 1) / (9 + 1); none: 2 / 10; all zero: no difference.
    draws = np.array([[-1.0] + [1.0] * 8, [1.0] * 9, [0.0] * 9]).T
    np.testing.assert_allclose(bootstrap_p_values(draws), [0.4, 0.2, 1.0])
    np.testing.assert_allclose(bootstrap_p_values(-draws), [0.4, 0.2, 1.0])


def test_without_groups_or_draws_nothing_is_drawn():
    with pytest.raises(ValueError, match="at least one group and one resample, got 0 and 5"):
        bootstrap_means(np.zeros([0, 1]), np.zeros(0), 5, seed=0)
    with pytest.raises(ValueError, match="got 1 and 0"):
        bootstrap_means(np.zeros([1, 1]), np.ones(1), 0, seed=0)
