import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrec_feedback.metrics.multiple import holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_each_p_value_is_multiplied_by_the_tests_that_are_left():
    # Ascending 0.01, 0.02, 0.03, 0.9: times 4, 3, 2, 1.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.02]), [0.06, 0.04, 0.9, 0.06])


def test_no_p_value_falls_below_a_smaller_one_or_exceeds_one():
    # 3 x 0.3 = 0.9; 2 x 0.4 = 0.8 is raised to 0.9; 1 x 0.95 stays.
    np.testing.assert_allclose(holm([0.3, 0.4, 0.95]), [0.9, 0.9, 0.95])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])


def test_a_test_that_could_not_be_made_does_not_count():
    np.testing.assert_allclose(holm([np.nan, 0.01, 0.04]), [np.nan, 0.02, 0.04])
    assert np.isnan(holm([np.nan])).all()
    assert len(holm([])) == 0


@given(P_VALUES)
def test_the_correction_lies_between_none_and_bonferronis(p_values):
    p_values = np.array(p_values)
    corrected = holm(p_values)
    assert (corrected >= p_values).all()
    assert (corrected <= np.minimum(p_values * len(p_values), 1.0) + 1e-15).all()


@given(P_VALUES, st.randoms())
def test_the_order_of_the_tests_does_not_matter(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    shuffled = holm([p_values[i] for i in order])
    np.testing.assert_array_equal(shuffled, holm(p_values)[order])


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"p_values must lie in \[0, 1\]"):
        holm([0.5, wrong])
