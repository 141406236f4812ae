import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.records import decode_record, num_candidates, parse_record, read_records
from tests.serving.tiny_model import record
from tfrec_feedback.data.parsing import parse_features
from tfrec_feedback.requests import RequestError, encode_requests
from tfrec_feedback.schema import Feature, FeedbackSequence, Hashing, Identity, Schema


def write(path, records, compression=""):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for data in records:
            writer.write(data)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_records_tensorflow_wrote_are_read(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("records") / "r.tfrecord"
    write(path, records)
    assert list(read_records(path)) == records


@pytest.mark.parametrize("cut", [1, 4, 8, 13])
def test_a_file_that_ends_inside_a_record_is_refused(tmp_path, cut):
    path = tmp_path / "r.tfrecord"
    write(path, [b"first", b"second"])
    path.write_bytes(path.read_bytes()[:-cut])
    reader = read_records(path)
    assert next(reader) == b"first"
    with pytest.raises(RequestError, match=r"record 1 claims more bytes"):
        next(reader)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "r.tfrecord"
    write(path, [b"first" * 20], "GZIP")
    with pytest.raises(RequestError, match="compressed, or no TFRecord"):
        list(read_records(path))
    with pytest.raises(FileNotFoundError):
        list(read_records(tmp_path / "none"))


def test_features_of_a_record_are_read_by_type():
    assert parse_record(record(3, [5, 6], [0.5, 0.25])) == {
        "hour": [3],
        "item_id": [5, 6],
        "price": [0.5, 0.25],
        "num_candidates": [2],
    }


def test_number_of_candidates_is_read_from_the_record():
    assert num_candidates(record(3, [5, 6, 7], [1.0, 1.0, 1.0])) == 3
    assert num_candidates(record(3, [], [])) == 0


def test_records_without_a_number_of_candidates_are_refused():
    empty = tf.train.Example().SerializeToString()
    with pytest.raises(RequestError, match=r"record 4: expected one integer 'num_candidates'"):
        num_candidates(empty, 4)
    with pytest.raises(RequestError, match=r"record 2 is not a serialised"):
        num_candidates(b"\xff\xff", 2)


def test_a_record_becomes_the_request_that_encodes_to_the_same_tensors(tiny_data):
    schema = tiny_data.schema()
    records = list(itertools.islice(read_records(tiny_data.shard_paths("test")[0]), 5))
    requests = [decode_record(schema, data) for data in records]
    assert any(request["histories"] for request in requests)
    expected = parse_features(tf.constant(records), schema)
    encoded = encode_requests(schema, requests)
    assert set(encoded) == set(expected)
    for name, array in encoded.items():
        # Where no request of the batch has any event, one side is padded to 1 and one to 0.
        width = expected[name].shape[1] if array.ndim > 1 else None
        np.testing.assert_array_equal(
            array[:, :width] if width is not None else array, expected[name].numpy()
        )


def test_values_that_are_lists_are_cut_by_their_counts_and_session_numbers_are_kept():
    schema = Schema(
        context=(),
        candidate=(Feature("item_id", Identity(9)), Feature("tag", Hashing(9), max_values=2)),
        histories=(FeedbackSequence("click", ("tag",), 3, num_sessions=2),),
    )
    integers = lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v))  # noqa: E731
    texts = lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v))  # noqa: E731
    features = {
        "item_id": integers([4, 5]),
        "tag": texts([b"a", b"b", b"c", b""]),
        "tag_count": integers([2, 1]),
        "num_candidates": integers([2]),
        "click_tag": texts([b"x", b""]),
        "click_tag_count": integers([1]),
        "click_session": integers([0]),
        "click_length": integers([1]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    assert decode_record(schema, example.SerializeToString()) == {
        "context": {},
        "histories": {"click": {"tag": [["x"]], "session": [0]}},
        "candidates": {"item_id": [4, 5], "tag": [["a", "b"], ["c"]]},
    }


def test_a_record_of_another_schema_is_refused():
    schema = Schema((), (Feature("item_id", Identity(9)), Feature("price", Identity(2))))
    with pytest.raises(RequestError, match=r"record 3: 'price' holds 0 values.* says 1"):
        decode_record(schema, record(3, [2], []), 3)
