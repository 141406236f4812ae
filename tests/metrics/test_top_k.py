import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden import RANKING
from tfrec_feedback.metrics import ndcg_at_k, ndcg_per_user, recall_at_k, recall_per_user


@pytest.mark.parametrize("k", [3, 5])
def test_golden_values_of_one_user(k):
    ranked, relevant = RANKING["ranked"], RANKING["relevant"]
    assert recall_at_k(ranked, relevant, k) == pytest.approx(RANKING["recall"][k], rel=1e-12)
    assert ndcg_at_k(ranked, relevant, k) == pytest.approx(RANKING["ndcg"][k], rel=1e-12)


def test_a_perfect_list_has_ndcg_1_however_few_or_many_are_relevant():
    for relevant in ([3], [3, 1], [3, 1, 4], [3, 1, 4, 5, 9]):
        assert ndcg_at_k([3, 1, 4], relevant, 3) == 1.0


def test_recall_is_divided_by_all_relevant_items_even_if_they_are_more_than_k():
    assert recall_at_k(["a", "b"], ["a", "b", "c", "d"], 2) == 0.5


def test_a_list_shorter_than_k_counts_as_it_is():
    assert recall_at_k([7], {7, 8}, 20) == 0.5
    assert ndcg_at_k([7], {7}, 20) == 1.0
    assert recall_at_k([], {7}, 1) == ndcg_at_k([], {7}, 1) == 0.0


def test_what_is_relevant_twice_counts_once():
    assert recall_at_k([1, 2], [1, 1, 3], 2) == 0.5


@pytest.mark.parametrize("metric", [recall_at_k, ndcg_at_k])
def test_wrong_arguments_are_refused(metric):
    with pytest.raises(ValueError, match="1 users have no relevant items.*leave them out"):
        metric([1, 2], [], 2)
    with pytest.raises(ValueError, match="k must lie between 1 and .* got 0"):
        metric([1, 2], [1], 0)
    with pytest.raises(ValueError, match="ranked holds 2 more than once"):
        metric([1, 2, 2], [1], 2)


@given(
    st.lists(
        st.tuples(st.permutations(range(8)), st.sets(st.integers(0, 11), min_size=1)), min_size=1
    ),
    st.integers(1, 8),
)
def test_many_users_at_once_equal_a_plain_loop(users, k):
    hits = [[item in relevant for item in ranked] for ranked, relevant in users]
    num_relevant = [len(relevant) for _, relevant in users]
    recalls, gains = [], []
    for ranked, relevant in users:
        found = [rank for rank, item in enumerate(ranked[:k], 1) if item in relevant]
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
        recalls.append(len(found) / len(relevant))
        gains.append(sum(1 / math.log2(rank + 1) for rank in found) / ideal)
    np.testing.assert_allclose(recall_per_user(hits, num_relevant, k), recalls, rtol=1e-12)
    np.testing.assert_allclose(ndcg_per_user(hits, num_relevant, k), gains, rtol=1e-12)
    singles = [recall_at_k(ranked, relevant, k) for ranked, relevant in users]
    np.testing.assert_array_equal(recall_per_user(hits, num_relevant, k), singles)
    singles = [ndcg_at_k(ranked, relevant, k) for ranked, relevant in users]
    np.testing.assert_array_equal(ndcg_per_user(hits, num_relevant, k), singles)


@given(st.permutations(range(10)), st.sets(st.integers(0, 14), min_size=1), st.integers(1, 9))
def test_recall_only_grows_with_k_and_both_lie_in_0_to_1(ranked, relevant, k):
    assert recall_at_k(ranked, relevant, k) <= recall_at_k(ranked, relevant, k + 1) <= 1
    assert 0 <= ndcg_at_k(ranked, relevant, k) <= 1


def test_no_users_have_no_values():
    assert recall_per_user(np.zeros((0, 5), bool), [], 5).shape == (0,)
    assert ndcg_per_user(np.zeros((0, 5), bool), [], 5).shape == (0,)


@pytest.mark.parametrize("metric", [recall_per_user, ndcg_per_user])
@pytest.mark.parametrize(
    ("hits", "num_relevant", "k", "message"),
    [
        ([True, False], [1], 1, r"hits must be bool \[U, K\], got bool of shape \(2,\)"),
        ([[1, 0]], [1], 1, r"hits must be bool \[U, K\], got int64"),
        ([[True, False]], [1], 3, "k must lie between 1 and the 2 ranked items, got 3"),
        ([[True, False]], [1, 1], 1, "num_relevant has 2 entries for 1 users"),
        ([[False], [False]], [0, 1], 1, "1 users have no relevant items"),
        ([[True, True]], [1], 2, "more hits than relevant items"),
    ],
)
def test_wrong_tables_are_refused(metric, hits, num_relevant, k, message):
    with pytest.raises(ValueError, match=message):
        metric(hits, num_relevant, k)
