import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.records import num_candidates, parse_record, read_records
from tests.serving.tiny_model import record
from tfrec_feedback.requests import RequestError


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
