import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_request, request_record, small_schema
from tfrec_feedback.data.parsing import parse_features
from tfrec_feedback.golden import (
    SIZES,
    batch,
    expected_scores,
    from_record,
    golden_requests,
    rows,
    to_record,
)
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Hashing, Identity

SCHEMA = small_schema(num_sessions=3)


def logged(count):
    rng = np.random.default_rng(5)
    requests = [random_request(rng, 1 + i, sessions=True) for i in range(count)]
    return requests, [request_record(SCHEMA, request) for request in requests]


def test_golden_requests_reach_the_corners():
    requests = golden_requests(SCHEMA)
    sizes = [int(request["num_candidates"]) for request in requests]
    assert set(SIZES) <= set(sizes)
    assert (min(sizes), max(sizes)) == (1, 300)
    lengths = [{h.name: int(r[h.length]) for h in SCHEMA.histories} for r in requests]
    assert {"click": 0, "unclick": 0, "like": 0, "dislike": 0} in lengths
    assert any(set(of.values()) == {7} for of in lengths)  # T is 5
    unknown = requests[-1]
    assert set(unknown["item_id"].tolist()) == {2**62 + 1}
    assert set(unknown["click_tag"].ravel().tolist()) == {b"never seen before"}


def test_golden_requests_are_the_same_every_time_and_differ_by_seed():
    first, again, other = (golden_requests(SCHEMA, seed=seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(not np.array_equal(a["hour"], b["hour"]) for a, b in zip(first, other, strict=True))


def test_requests_that_are_made_up_hold_what_the_schema_allows():
    for request in golden_requests(SCHEMA)[:-1]:
        assert set(request) == {spec.name for spec in SCHEMA.inputs()}
        assert set(request["item_id"].tolist()) <= set(SCHEMA.vocabulary("item_id"))
        assert set(request["tag"].ravel().tolist()) <= {
            t.encode() for t in SCHEMA.vocabulary("tag")
        }
        assert 0 <= request["hour"] < 24
        assert (request["tag_count"] <= 3).all()
        for history in SCHEMA.histories:
            sessions = request[history.session]
            assert len(sessions) == request[history.length]
            assert (np.diff(sessions) <= 0).all()
            assert (sessions[-1:] == 0).all()


def test_integers_that_are_hashed_are_made_up_as_integers():
    item = dataclasses.replace(SCHEMA.feature("item_id"), encoding=Hashing(10, dtype="int64"))
    schema = dataclasses.replace(SCHEMA, candidate=(item, *SCHEMA.candidate[1:]))
    assert golden_requests(schema)[0]["click_item_id"].dtype == np.int64


def test_logged_requests_of_all_sizes_are_kept_without_what_is_no_input():
    requests, records = logged(40)
    labelled = [request_record(SCHEMA, r, user_key=("string", ["secret"])) for r in requests]
    kept = golden_requests(SCHEMA, labelled)[:12]
    assert [int(r["num_candidates"]) for r in kept][::11] == [1, 40]
    assert to_record(SCHEMA, kept[0], None) == records[0]
    assert not any(b"secret" in to_record(SCHEMA, request, None) for request in kept)


def test_a_record_and_its_expected_scores_are_read_back():
    request = golden_requests(SCHEMA)[2]
    scores = {"ctr": np.float32([0.25, 0.5, 1]), "dislike": np.float32([0, 0.125, 0])}
    record = to_record(SCHEMA, request, scores)
    found = expected_scores(record)
    assert {task: values.tolist() for task, values in found.items()} == {
        "ctr": [0.25, 0.5, 1],
        "dislike": [0, 0.125, 0],
    }
    again = from_record(SCHEMA, record)
    for spec in SCHEMA.inputs():
        assert again[spec.name].dtype == request[spec.name].dtype
        assert np.array_equal(again[spec.name], request[spec.name])


def test_batches_are_padded_as_the_parser_and_the_client_pad_them():
    requests, records = logged(3)
    parts = batch(SCHEMA, [from_record(SCHEMA, record) for record in records])
    parsed = parse_features(tf.constant(records), SCHEMA)
    encoded = encode_requests(SCHEMA, requests)
    for spec in SCHEMA.inputs():
        assert parts[spec.name].dtype == encoded[spec.name].dtype
        assert np.array_equal(parts[spec.name], encoded[spec.name])
        assert np.array_equal(parts[spec.name], parsed[spec.name].numpy())


def test_padding_by_the_first_element_is_that_of_each_tensor():
    request = golden_requests(SCHEMA)[1]
    wide = batch(SCHEMA, [request], extra=2, first=True)
    assert wide["item_id"].shape == (1, 4)
    assert (wide["item_id"][0, 2:] == request["item_id"][0]).all()
    assert (wide["tag"][0, 2:] == request["tag"][0, 0]).all()
    assert wide["num_candidates"].tolist() == [2]


def test_rows_repeat_the_user_for_every_candidate():
    requests = golden_requests(SCHEMA)[:3]
    arrays = rows(SCHEMA, batch(SCHEMA, requests))
    assert arrays["item_id"].tolist() == [i for r in requests for i in r["item_id"].tolist()]
    assert arrays["hour"].tolist() == [int(r["hour"]) for r in requests for _ in r["item_id"]]
    assert list(arrays) == [spec.name for spec in SCHEMA.row_inputs()]


@pytest.mark.parametrize("name", ["user_id", "hour"])
def test_a_request_without_histories_is_made_up_too(name):
    schema = dataclasses.replace(SCHEMA, histories=())
    assert isinstance(schema.feature(name).encoding, Hashing | Identity)
    assert golden_requests(schema)[-1][name].shape == ()
