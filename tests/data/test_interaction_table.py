import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tables import pairs, random_table, table_of


def test_train_items_are_listed_by_user_sorted_and_with_their_flags():
    table = table_of(4, 5, train=pairs((2, 4), (0, 3), (2, 1), (2, 0), false=((2, 1),)))
    lists = table.positives
    assert [lists.of(user).tolist() for user in range(4)] == [[3], [], [0, 1, 4], []]
    assert lists.offsets.tolist() == [0, 1, 1, 4, 4]
    assert lists.clean.tolist() == [True, True, False, True]
    assert table.activity.tolist() == [1, 0, 3, 0]
    assert table.popularity.tolist() == [1, 1, 0, 1, 1]
    assert (lists.items.dtype, lists.offsets.dtype) == (np.int32, np.int64)


def test_lists_of_several_splits_are_unions_and_can_leave_others_out():
    table = table_of(
        2,
        5,
        train=pairs((0, 0)),
        validation=pairs((0, 3), (1, 2)),
        test=pairs((0, 3), (1, 4), (0, 0)),
    )
    known = table.lists("train", "validation")
    assert [known.of(user).tolist() for user in range(2)] == [[0, 3], [2]]
    left = table.lists("test", without=known)
    assert [left.of(user).tolist() for user in range(2)] == [[], [4]]
    assert table.lists().lengths.tolist() == [0, 0]


def test_a_user_who_has_everything_is_refused():
    with pytest.raises(ValueError, match=r"1 users \(index 1\) .* each of the 2 items"):
        table_of(2, 2, train=pairs((1, 1), (0, 0), (1, 0)))


def test_indices_outside_the_catalogue_are_refused():
    with pytest.raises(ValueError, match=r"'test' has item indices outside \[0, 3\)"):
        table_of(2, 3, train=pairs((0, 0)), test=pairs((0, 3)))


def test_an_unknown_split_is_answered_with_the_closest():
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        table_of(1, 2, train=pairs((0, 0))).split("trian")


@given(st.integers(1, 8), st.integers(2, 9), st.floats(0, 1), st.integers(0, 1000))
def test_lists_hold_each_interaction_once(num_users, num_items, share, seed):
    table = random_table(num_users, num_items, share, seed)
    train = table.split("train")
    expected = sorted(zip(train.users.tolist(), train.items.tolist(), strict=True))
    listed = [(u, i) for u in range(num_users) for i in table.positives.of(u).tolist()]
    assert listed == expected
