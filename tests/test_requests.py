import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec_feedback.requests import RequestError, encode_requests
from tfrec_feedback.schema import (
    Buckets,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    Schema,
)

SCHEMA = Schema(
    context=(Feature("hour", Identity(24)), Feature("langs", Hashing(9), max_values=2)),
    candidate=(
        Feature("item", Identity(99)),
        Feature("tag", Hashing(9), max_values=2),
        Feature("price", Buckets((1.0,))),
    ),
    histories=(
        FeedbackSequence("click", ("item", "tag"), max_length=3),
        FeedbackSequence("dislike", ("item",), max_length=2),
    ),
)


def request(**changes) -> dict:
    return {
        "context": {"hour": 21, "langs": ["de", "en"]},
        "histories": {"click": {"item": [1, 2], "tag": [["a"], []]}},
        "candidates": {"item": [7, 8], "tag": [["b"], ["c", "d"]], "price": [0.5, 2]},
    } | changes


def candidates(**changes) -> dict:
    return request(candidates=request()["candidates"] | changes)


def test_a_batch_holds_the_tensors_of_the_schema_with_its_types():
    batch = encode_requests(SCHEMA, [request()])
    kinds = {"int64": "int64", "float32": "float32", "string": "object"}
    assert list(batch) == [spec.name for spec in SCHEMA.inputs()]
    for spec in SCHEMA.inputs():
        assert batch[spec.name].dtype == kinds[spec.dtype]
        assert batch[spec.name].ndim == len(spec.axes)


def test_one_request_is_encoded_as_worked_out_by_hand():
    batch = {name: array.tolist() for name, array in encode_requests(SCHEMA, [request()]).items()}
    assert batch == {
        "hour": [21],
        "langs": [[b"de", b"en"]],
        "langs_count": [2],
        "item": [[7, 8]],
        "tag": [[[b"b", b""], [b"c", b"d"]]],
        "tag_count": [[1, 2]],
        "price": [[0.5, 2.0]],
        "num_candidates": [2],
        "click_item": [[1, 2]],
        "click_tag": [[[b"a", b""], [b"", b""]]],
        "click_tag_count": [[1, 0]],
        "click_length": [2],
        "dislike_item": [[0]],
        "dislike_length": [0],
    }


def test_shorter_requests_are_padded_to_the_longest():
    short = request(
        histories={"click": [], "dislike": [{"item": 5}]},
        candidates=[{"item": 9, "tag": [], "price": 1.0}],
    )
    batch = encode_requests(SCHEMA, [request(), short])
    assert batch["item"].tolist() == [[7, 8], [9, 0]]
    assert batch["num_candidates"].tolist() == [2, 1]
    assert batch["tag"][1].tolist() == [[b"", b""], [b"", b""]]
    assert batch["click_item"].tolist() == [[1, 2], [0, 0]]
    assert batch["click_length"].tolist() == [2, 0]
    assert batch["dislike_item"].tolist() == [[0], [5]]
    assert batch["dislike_length"].tolist() == [0, 1]


def test_rows_and_columns_are_the_same_request():
    rows = [
        {"item": 7, "tag": ["b"], "price": 0.5},
        {"price": 2, "tag": ["c", "d"], "item": 8},
    ]
    ours, theirs = (encode_requests(SCHEMA, [r]) for r in (request(candidates=rows), request()))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_long_histories_keep_their_most_recent_events():
    clicks = {"item": [1, 2, 3, 4, 5], "tag": [["a"], ["b"], ["c"], ["d"], ["e"]]}
    batch = encode_requests(SCHEMA, [request(histories={"click": clicks})])
    assert batch["click_item"].tolist() == [[3, 4, 5]]
    assert batch["click_tag"][0, :, 0].tolist() == [b"c", b"d", b"e"]
    assert batch["click_length"].tolist() == [3]


def test_values_over_the_width_are_left_out():
    batch = encode_requests(SCHEMA, [candidates(tag=[["a", "b", "c"], []])])
    assert batch["tag"].tolist() == [[[b"a", b"b"], [b"", b""]]]
    assert batch["tag_count"].tolist() == [[2, 0]]


def test_no_candidates_and_no_requests_still_give_tensors():
    none = encode_requests(SCHEMA, [request(candidates=[])])
    assert none["num_candidates"].tolist() == [0]
    assert none["item"].shape == (1, 1)
    empty = encode_requests(SCHEMA, [])
    assert {name: array.shape[0] for name, array in empty.items()} == dict.fromkeys(empty, 0)
    assert empty["tag"].shape == (0, 1, 2)


def test_numpy_columns_and_text_and_bytes_are_taken():
    batch = encode_requests(
        SCHEMA,
        [
            request(context={"hour": np.int32(3), "langs": np.array(["é"])})
            | {"candidates": {"item": np.array([7.0]), "tag": [(b"\xff",)], "price": [1]}}
        ],
    )
    assert batch["hour"].tolist() == [3]
    assert batch["langs"].tolist() == [["é".encode(), b""]]
    assert batch["item"].tolist() == [[7]]
    assert batch["tag"][0, 0, 0] == b"\xff"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([7, "8"], "expected int64 values, got '8'"),
        ([7, None], "expected int64 values, got None"),
        ([7, True], "expected int64 values, got True"),
        ([True, False], "expected int64 values, got True"),
        ([7, [8]], r"expected int64 values, got \[8\]"),
        ([[7], [8]], r"expected int64 values, got \[7\]"),
        ([7, 8.5], "expected integers of 64 bits, got 8.5"),
        ([7, float("nan")], "expected integers of 64 bits, got nan"),
        ([7, float("inf")], "expected integers of 64 bits, got inf"),
        ([7, 2**63], "expected integers of 64 bits, got 9223372036854775808"),
        ([-7, 2**63], "expected integers of 64 bits, got 9223372036854775808"),
        ([7, 2**70], "expected int64 values, got 1180591620717411303424"),
        (np.array([7, 2**63], np.uint64), "expected integers of 64 bits, got np.uint64"),
    ],
)
def test_what_is_no_64_bit_integer_is_refused(value, expected):
    with pytest.raises(RequestError, match=rf"request 0: candidates\.item: {expected}"):
        encode_requests(SCHEMA, [candidates(item=value)])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([0.5, float("nan")], "finite numbers, got NaN or infinity"),
        ([0.5, float("inf")], "finite numbers, got NaN or infinity"),
        ([0.5, 1e39], "finite numbers, got NaN or infinity"),  # over the range of float32
        ([0.5, "1"], "expected float32 values, got '1'"),
        ([0.5, None], "expected float32 values, got None"),
        ([0.5, True], "expected float32 values, got True"),
    ],
)
def test_what_is_no_finite_number_is_refused(value, expected):
    with pytest.raises(RequestError, match=rf"candidates\.price: .*{expected}"):
        encode_requests(SCHEMA, [candidates(price=value)])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"context": {"hour": 1}}, r"context is missing \['langs'\]"),
        ({"context": None}, r"context is missing \['hour', 'langs'\]"),
        ({"context": {"hour": 1, "langs": [], "huor": 1}}, "unknown 'huor'.*mean 'hour'"),
        ({"context": {"hour": 1, "langs": "de"}}, "multi-valued: entry 0 must be a list"),
        ({"context": {"hour": 1, "langs": [3]}}, r"context\.langs: expected text, got 3 \(int\)"),
        ({"context": {"hour": 1, "langs": ["\ud800"]}}, r"langs: expected Unicode text, got '.ud8"),
        ({"context": [1]}, "context must be a mapping, got list"),
        ({"histories": {"clik": []}}, "histories has unknown 'clik'.*mean 'click'"),
        ({"histories": [1]}, "histories must be a mapping, got list"),
        ({"histories": {"click": {"item": [1]}}}, r"histories\.click is missing \['tag'\]"),
        ({"histories": {"dislike": [{"tag": 1}]}}, r"histories\.dislike\[0\] has unknown 'tag'"),
        ({"histories": {"dislike": 5}}, r"histories\.dislike must be a mapping, got int"),
        ({"candidates": {"item": [1]}}, r"candidates is missing \['tag', 'price'\]"),
        ({"candidates": [3]}, r"candidates\[0\] must be a mapping, got int"),
        ({"candidates": "abc"}, "candidates must be a mapping, got str"),
        ({"canddates": []}, "unknown part 'canddates'.*mean 'candidates'"),
    ],
)
def test_parts_that_do_not_fit_are_refused_naming_them(changes, expected):
    with pytest.raises(RequestError, match=f"request 1: .*{expected}"):
        encode_requests(SCHEMA, [request(), request(**changes)])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"item": [1, 2, 3]}, "columns of candidates differ in length: {'item': 3, 'tag': 2"),
        ({"item": 1}, "candidates.item must be a list, got int"),
        ({"item": "12"}, "candidates.item must be a list, got str"),
        ({"item": {1: 2, 3: 4}}, "candidates.item must be a list, got dict"),
        ({"item": {1, 2}}, "candidates.item must be a list, got set"),
        ({"tag": ["ab", ["c"]]}, "candidates.tag is multi-valued: entry 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused_naming_them(changes, expected):
    with pytest.raises(RequestError) as error:
        encode_requests(SCHEMA, [candidates(**changes)])
    assert expected in str(error.value)


def test_a_request_without_candidates_or_of_another_type_is_refused():
    with pytest.raises(RequestError, match="no 'candidates': nothing to score"):
        encode_requests(SCHEMA, [{"context": {}}])
    with pytest.raises(RequestError, match="expected a mapping .* got list"):
        encode_requests(SCHEMA, [[1]])


WITH_SESSIONS = dataclasses.replace(
    SCHEMA,
    histories=tuple(dataclasses.replace(h, num_sessions=2) for h in SCHEMA.histories),
)


def clicked(**columns):
    click = {"item": [1, 2, 3, 4], "tag": [[], [], [], []], **columns}
    return request(histories={"click": click})


def test_session_numbers_are_sent_as_they_are_and_cut_with_their_events():
    shorter = request(histories={"click": [{"item": 5, "tag": [], "session": 0}]})
    batch = encode_requests(WITH_SESSIONS, [clicked(session=[9, 4, 1, 0]), shorter])
    assert list(batch) == [spec.name for spec in WITH_SESSIONS.inputs()]
    assert batch["click_session"].tolist() == [[4, 1, 0], [0, 0, 0]]
    assert batch["click_session"].dtype == np.int64
    assert batch["click_length"].tolist() == [3, 1]
    assert batch["dislike_session"].tolist() == [[0], [0]]


def test_a_model_without_sessions_ignores_them():
    ours, theirs = (
        encode_requests(SCHEMA, [r]) for r in (clicked(session=[1, 1, 0, 0]), clicked())
    )
    assert list(ours) == list(theirs)
    rows = [{"item": 5, "tag": [], "session": 0}]
    assert encode_requests(SCHEMA, [request(histories={"click": rows})])["click_item"] == [[5]]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, r"histories\.click is missing \['session'\]"),
        ({"session": [0, 0]}, "columns of histories.click differ in length.*'session': 2"),
        ({"session": [0, 0, 1, 1]}, r"never growing.*got \[0, 1, 1\]"),
        ({"session": [7, 7, 6, 6]}, r"0 at the last event.*got \[7, 6, 6\]"),
        ({"session": [0, 0, 0, -1]}, r"never below 0.*got \[0, 0, -1\]"),
        ({"session": [0, 0, 0.5, 0]}, r"click_session: expected integers of 64 bits, got 0.5"),
        ({"session": ["a"] * 4}, r"click_session: expected int64 values, got 'a'"),
        ({"session": [0] * 4, "sessoin": []}, "unknown 'sessoin'.*mean 'session'"),
    ],
)
def test_session_numbers_that_make_no_sense_are_refused(columns, expected):
    with pytest.raises(RequestError, match=f"request 0: .*{expected}"):
        encode_requests(WITH_SESSIONS, [clicked(**columns)])


ROWS = st.fixed_dictionaries(
    {
        "item": st.integers(-(2**63), 2**63 - 1),
        "tag": st.lists(st.text(max_size=3), max_size=2),
        "price": st.floats(allow_nan=False, allow_infinity=False, width=32),
    }
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(ROWS, max_size=4), min_size=1, max_size=3))
def test_every_value_is_found_where_its_candidate_stands(many):
    batch = encode_requests(SCHEMA, [request(candidates=rows) for rows in many])
    for r, rows in enumerate(many):
        assert batch["num_candidates"][r] == len(rows)
        for n, row in enumerate(rows):
            assert batch["item"][r, n] == row["item"]
            assert batch["price"][r, n] == row["price"]
            count = batch["tag_count"][r, n]
            assert [t.decode() for t in batch["tag"][r, n, :count]] == row["tag"]


def test_a_request_alone_is_encoded_as_beside_others_and_shares_no_memory_with_its_arrays():
    columns = {"item": np.array([1, 2]), "tag": [[], ["a"]], "price": np.array([1, 2], np.float32)}
    one = request(candidates=columns)
    alone, beside = encode_requests(SCHEMA, [one]), encode_requests(SCHEMA, [one, one])
    assert set(alone) == set(beside)
    for name, array in alone.items():
        assert array.dtype == beside[name].dtype
        np.testing.assert_array_equal(array, beside[name][:1])
    assert not np.shares_memory(alone["item"], columns["item"])
    assert not np.shares_memory(alone["price"], columns["price"])


def test_the_encoder_needs_no_tensorflow():
    code = "import sys, tfrec_feedback.requests; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
