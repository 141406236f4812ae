import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching import checked, cut, groups
from serving.errors import ServingError
from tests.serving.tiny_model import REQUEST, SCHEMA
from tfrec_feedback.requests import encode_requests


def test_requests_share_a_message_while_rows_times_width_fit():
    # 3 rows x 2 = 6 fit, a fourth (8) does not; 5 goes with nothing; 9 is cut later.
    assert groups([2, 1, 2, 2, 5, 9], limit=6) == [(0, 3, 2), (3, 4, 2), (4, 5, 5), (5, 6, 9)]


def test_requests_without_candidates_count_as_one_wide():
    assert groups([0, 0, 0], limit=2) == [(0, 2, 0), (2, 3, 0)]
    assert groups([], limit=2) == []


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(1, 15))
def test_groups_cover_every_request_once_and_keep_the_limit(counts, limit):
    packed = groups(counts, limit)
    assert [i for start, stop, _ in packed for i in range(start, stop)] == list(range(len(counts)))
    for start, stop, width in packed:
        assert width == max(counts[start:stop])
        assert stop - start == 1 or (stop - start) * width <= limit


def test_a_cut_keeps_the_user_and_counts_the_candidates_that_are_left():
    short = REQUEST | {"candidates": {name: v[:1] for name, v in REQUEST["candidates"].items()}}
    batch = encode_requests(SCHEMA, [REQUEST, short])
    part = cut(SCHEMA, batch, slice(0, 2), slice(1, 3))
    assert part["num_candidates"].tolist() == [2, 0]
    assert part["item_id"].tolist() == [[12, 3], [0, 0]]
    assert part["tag"].shape == (2, 2, 3)
    assert part["tag_count"].tolist() == [[0, 3], [0, 0]]
    assert part["click_item_id"].tolist() == [[1, 2], [1, 2]]
    assert part["hour"].tolist() == [20, 20]


def test_a_cut_of_everything_is_the_batch():
    short = REQUEST | {"candidates": {name: v[:1] for name, v in REQUEST["candidates"].items()}}
    batch = encode_requests(SCHEMA, [REQUEST, short])
    for stop in (3, 4):
        part = cut(SCHEMA, batch, slice(0, 2), slice(0, stop))
        assert part.keys() == batch.keys()
        assert all(part[name] is batch[name] for name in batch)
    fewer = cut(SCHEMA, batch, slice(0, 2), slice(0, 2))
    assert fewer["num_candidates"].tolist() == [2, 1] and fewer["item_id"].shape == (2, 2)
    first = cut(SCHEMA, batch, slice(0, 1), slice(0, 3))
    assert first["num_candidates"].tolist() == [3] and first["item_id"].shape == (1, 3)


@pytest.mark.parametrize("shape", [(2,), (1, 3), (2, 2)])
def test_scores_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ServingError, match="Expected scores 'ctr'") as error:
        checked({"ctr": np.zeros(shape)}, "ctr", (2, 3))
    assert error.value.code == grpc.StatusCode.INTERNAL


def test_missing_scores_are_refused_naming_those_that_came():
    with pytest.raises(ServingError, match=r"answered \['ctr'\]"):
        checked({"ctr": np.zeros((1, 1))}, "dislike", (1, 1))
