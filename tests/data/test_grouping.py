import numpy as np
import pandas as pd
import pytest

from tests.data.logs import small_events
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import group_requests, split_by_time


def candidates(table):
    return [r.tolist() for r in np.split(table.rows, table.offsets[1:-1])]


def test_rows_of_one_user_and_time_are_one_request():
    table = group_requests(small_events())
    assert candidates(table) == [[0], [1, 2], [3], [4], [5]]
    assert table.request_id.tolist() == ["ann:10", "ann:20", "bob:20", "ann:30", "bob:40"]
    assert table.timestamp.tolist() == [10, 20, 20, 30, 40]
    assert table.user.tolist() == [0, 0, 1, 0, 1]


def test_a_request_id_joins_rows_and_the_earliest_is_its_time():
    events = small_events().assign(request_id=["x", "x", "y", "x", "y", "z"])
    table = group_requests(events)
    # Ann's x: rows 0, 1. Bob's x is another request. Ann's y: rows 2, 4.
    assert candidates(table) == [[0, 1], [2, 4], [3], [5]]
    assert table.timestamp.tolist() == [10, 20, 20, 40]
    assert table.request_id.tolist() == ["x", "y", "x", "z"]


def test_an_unsorted_log_gives_requests_in_time_order():
    events = small_events().iloc[::-1].reset_index(drop=True)
    table = group_requests(events)
    assert table.timestamp.tolist() == [10, 20, 20, 30, 40]
    assert candidates(table) == [[5], [2], [3, 4], [1], [0]]


def test_splits_follow_time():
    table = group_requests(small_events(), (0.6, 0.2, 0.2))
    assert table.split.tolist() == [0, 0, 0, 1, 2]
    assert table.rows_of("train").tolist() == [0, 1, 2, 3]
    assert table.requests_of("test").tolist() == [4]


def test_requests_of_one_moment_are_never_parted():
    assert split_by_time(np.array([1, 2, 2, 2, 3]), (0.4, 0.4, 0.2)).tolist() == [0, 1, 1, 1, 2]


def test_a_split_column_decides():
    events = small_events()
    events["split"] = ["test", "train", "train", "validation", "test", "train"]
    assert group_requests(events).split.tolist() == [2, 0, 1, 2, 0]


def test_a_request_of_several_splits_is_refused():
    events = small_events().assign(split=["train", "train", "test", "train", "train", "train"])
    with pytest.raises(EventLogError, match=r"request of user 'ann' at 20 has rows of several"):
        group_requests(events)


def test_a_log_without_rows_or_train_requests_is_refused():
    with pytest.raises(EventLogError, match="no usable rows"):
        group_requests(small_events().iloc[:0])
    with pytest.raises(EventLogError, match="train split"):
        group_requests(small_events().assign(split="test"))


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_shares_must_sum_to_one(fractions):
    with pytest.raises(EventLogError, match="sum to 1"):
        group_requests(small_events(), fractions)


def test_pandas_text_ids_group_like_any_other():
    events = small_events()
    events["user_id"] = pd.Series(events["user_id"], dtype="str")
    assert len(group_requests(events)) == 5
