import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss

from tfrec_feedback.metrics import expected_calibration_error, log_loss


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def test_log_loss_of_even_odds_is_the_logarithm_of_two():
    assert log_loss([1, 0], [0.0, 0.0]) == pytest.approx(math.log(2))


def test_log_loss_by_hand():
    # Odds 3:1 for a positive and 1:3 for a negative: each costs log(4/3).
    assert log_loss([1, 0], [math.log(3), -math.log(3)]) == pytest.approx(math.log(4 / 3))


def test_log_loss_stays_exact_where_probabilities_saturate():
    assert log_loss([0, 1], [1000.0, 1000.0]) == 500.0
    assert log_loss([1], [40.0]) == pytest.approx(math.exp(-40), rel=1e-9)


def test_log_loss_equals_scikit_learn_with_and_without_weights():
    rng = np.random.default_rng(0)
    labels, logits, weights = rng.integers(2, size=500), rng.normal(size=500), rng.random(500)
    p = sigmoid(logits)
    assert log_loss(labels, logits) == pytest.approx(sklearn_log_loss(labels, p), rel=1e-12)
    assert log_loss(labels, logits, weights) == pytest.approx(
        sklearn_log_loss(labels, p, sample_weight=weights), rel=1e-12
    )


def test_log_loss_without_rows_is_nan():
    assert math.isnan(log_loss([], []))


def test_calibration_error_by_hand():
    # Bins (0.1, 0.1) with rate 0 and (0.8, 0.9) with rate 1/2: (2 * 0.1 + 2 * 0.35) / 4.
    error = expected_calibration_error([0, 0, 1, 0], [0.1, 0.1, 0.8, 0.9], num_bins=2)
    assert error == pytest.approx(0.225)


def test_true_probabilities_are_calibrated_and_shifted_ones_are_off_by_the_shift():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.1, 0.8, size=60_000)
    labels = (rng.random(60_000) < p).astype(int)
    assert expected_calibration_error(labels, p) < 0.012
    assert expected_calibration_error(labels, p + 0.15) == pytest.approx(0.15, abs=0.012)


def test_distinct_probabilities_fill_bins_of_equal_size():
    rng = np.random.default_rng(2)
    p, labels = np.sort(rng.random(60)), rng.integers(2, size=60)
    naive = np.mean([abs((p[i : i + 4] - labels[i : i + 4]).mean()) for i in range(0, 60, 4)])
    assert expected_calibration_error(labels, p, num_bins=15) == pytest.approx(naive)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 1.0])), min_size=1),
    st.randoms(use_true_random=False),
)
def test_calibration_error_does_not_depend_on_the_order_of_tied_rows(rows, random):
    shuffled = random.sample(rows, len(rows))
    first = expected_calibration_error(*zip(*rows, strict=True), num_bins=4)
    assert 0 <= first <= 1
    second = expected_calibration_error(*zip(*shuffled, strict=True), num_bins=4)
    assert second == pytest.approx(first, abs=1e-12)


def test_calibration_error_without_rows_is_nan():
    assert math.isnan(expected_calibration_error([], []))


def test_logits_are_refused_as_probabilities():
    with pytest.raises(ValueError, match="apply the sigmoid to logits first"):
        expected_calibration_error([0, 1], [-1.0, 2.0])


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        expected_calibration_error([0, 1], [0.1, 0.2], num_bins=0)
