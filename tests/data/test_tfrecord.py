import pickle

import pytest
import tensorflow as tf

from tfrec_feedback.data.tfrecord import CorruptRecordError, ReadStats, read_records, write_records

# Frames of 16 bytes and the payload: records at bytes 0, 19 and 38 of 59.
PAYLOADS = [b"one", b"two", b"three"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "part.tfrecord"
    assert write_records(path, PAYLOADS) == (3, 59)
    return path


def damage(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def test_tensorflow_reads_what_is_written(file):
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(file))] == PAYLOADS


def test_what_tensorflow_writes_is_read(tmp_path):
    path = tmp_path / "by_tensorflow"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert list(read_records(path)) == [(0, b"one"), (19, b"two"), (38, b"three")]


def test_no_temporary_file_is_left(file):
    assert [p.name for p in file.parent.iterdir()] == ["part.tfrecord"]


def test_an_interrupted_writer_leaves_no_file_under_the_final_name(tmp_path):
    def records():
        yield b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path / "part.tfrecord", records())
    assert not (tmp_path / "part.tfrecord").exists()


def test_a_damaged_payload_is_reported_with_file_and_offset(file):
    damage(file, 19 + 12)
    with pytest.raises(CorruptRecordError, match=r"part.tfrecord at byte 19: .*payload") as error:
        list(read_records(file))
    assert error.value.offset == 19
    assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason  # noqa: S301


def test_a_damaged_payload_is_skipped_and_counted(file):
    damage(file, 19 + 12)
    stats = ReadStats()
    records = list(read_records(file, skip_corrupt=True, stats=stats))
    assert records == [(0, b"one"), (38, b"three")]
    assert (stats.records, stats.skipped, stats.bytes_lost, len(stats.damage)) == (2, 1, 0, 1)


def test_a_damaged_length_ends_the_file(file):
    damage(file, 19)
    stats = ReadStats()
    assert list(read_records(file, skip_corrupt=True, stats=stats)) == [(0, b"one")]
    assert (stats.records, stats.skipped, stats.bytes_lost) == (1, 0, 40)
    with pytest.raises(CorruptRecordError, match="length"):
        list(read_records(file))


@pytest.mark.parametrize("size", [58, 50, 45, 39])
def test_a_truncated_tail_ends_the_file(file, size):
    file.write_bytes(file.read_bytes()[:size])
    stats = ReadStats()
    records = list(read_records(file, skip_corrupt=True, stats=stats))
    assert records == [(0, b"one"), (19, b"two")]
    assert stats.bytes_lost == size - 38
    with pytest.raises(CorruptRecordError, match=r"byte 38: truncated"):
        list(read_records(file))
