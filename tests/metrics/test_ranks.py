import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tfrec_feedback.metrics.ranks import mid_ranks, won_pairs


def test_tied_values_share_the_mean_of_their_ranks():
    assert mid_ranks(np.array([3.0, 1.0, 3.0, 3.0, 9.0])).tolist() == [3, 1, 3, 3, 5]


def test_no_values_have_no_ranks():
    assert mid_ranks(np.array([])).shape == (0,)


@given(st.lists(st.integers(-3, 3)))
def test_mid_ranks_equal_scipy(values):
    array = np.array(values, np.float64)
    np.testing.assert_array_equal(mid_ranks(array), rankdata(array))


def test_pairs_are_counted_inside_groups_only():
    # Group 0: positive 2 against negatives 1 and 2: 1 + 1/2. Group 1: positive 0 against 5: none.
    won = won_pairs(
        scores=np.array([2.0, 1.0, 2.0, 0.0, 5.0]),
        positive=np.array([1.0, 0, 0, 1, 0]),
        negative=np.array([0.0, 1, 1, 0, 1]),
        groups=np.array([0, 0, 0, 1, 1]),
        num_groups=2,
    )
    assert won.tolist() == [1.5, 0.0]
