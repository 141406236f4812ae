import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrec_feedback.metrics import auc, delong_test
from tfrec_feedback.metrics.placements import normal_p_value, placements


def test_each_row_says_how_many_of_the_other_class_it_beats():
    # The positive 3 beats 1 and ties with 3; the positive 2 beats 1 alone.
    parts = placements([0, 1, 0, 1], [1, 3, 3, 2])
    assert parts.positives.tolist() == [0.75, 0.5]
    assert parts.negatives.tolist() == [1.0, 0.25]
    assert parts.auc == 0.625


def test_the_variance_can_be_checked_by_hand():
    # Both classes have placements (2/3, 1, 1): variance 1/27, over three rows, twice.
    parts = placements([0, 0, 1, 0, 1, 1], [1, 2, 3, 4, 5, 6])
    assert parts.variance == pytest.approx(2 / 81)


@given(st.integers(0, 10_000))
def test_the_difference_is_that_of_the_aucs_and_its_test_is_delongs(seed):
    rng = np.random.default_rng(seed)
    labels, a, b = np.arange(30) % 2, rng.normal(size=30), rng.normal(size=30)
    value, variance = placements(labels, a).less(placements(labels, b))
    assert value == pytest.approx(auc(labels, a) - auc(labels, b))
    assert normal_p_value(value, variance) == delong_test(labels, a, b).p_value


def test_p_values_are_those_of_the_normal_distribution():
    assert normal_p_value(3.0, 4.0) == pytest.approx(2 * NormalDist().cdf(-1.5))
    assert normal_p_value(-3.0, 4.0) == normal_p_value(3.0, 4.0)
    assert normal_p_value(0.0, 0.0) == 1.0
    assert math.isnan(normal_p_value(0.1, 0.0))
    assert math.isnan(normal_p_value(0.1, math.nan))


def test_errors_name_the_scores_they_are_about():
    with pytest.raises(ValueError, match="scores_b holds 1 NaN"):
        placements([0, 1], [0.5, math.nan], "scores_b")
