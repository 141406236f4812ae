import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec_feedback.data.protobuf import (
    ExampleError,
    FeatureEncoder,
    decode_example,
    decode_integers,
    encode_column,
    encode_example,
    join_examples,
    raw_features,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
COLUMNS = {"int64": INT64, "float32": FLOAT32, "string": st.text(max_size=200)}


def tensorflow_values(record):
    features = tf.train.Example.FromString(record).features.feature
    return {k: list(getattr(f, f.WhichOneof("kind")).value) for k, f in features.items()}


@settings(max_examples=50, deadline=None)
@given(*(st.lists(values, max_size=20) for values in COLUMNS.values()))
def test_tensorflow_reads_the_same_values(integers, floats, texts):
    columns = {"int64": integers, "float32": floats, "string": texts}
    record = encode_example({f"a_{d}": (d, values) for d, values in columns.items()})
    expected = {
        "a_int64": integers,
        "a_float32": floats,
        "a_string": [text.encode() for text in texts],
    }
    assert tensorflow_values(record) == expected
    assert decode_example(record) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(INT64))
def test_integers_survive_the_column(values):
    column = encode_column(np.array(values, np.int64), "int64")
    assert decode_integers(column.data).tolist() == values
    assert len(column.offsets) == len(values) + 1


def test_varints_take_seven_bits_a_byte():
    column = encode_column([0, 127, 128, 300, -1], "int64")
    assert column.data.tobytes()[:6] == bytes([0, 127, 0x80, 1, 0xAC, 2])
    assert column.offsets.tolist() == [0, 1, 2, 4, 6, 16]


@pytest.mark.parametrize("dtype", COLUMNS)
def test_slices_of_taken_rows_hold_those_rows(dtype):
    values = {"int64": [5, 600, -7], "float32": [0.5, 1.5, 2.5], "string": ["", "b", "c" * 300]}
    rows = np.array([2, 2, 0, 1])
    encoder = FeatureEncoder("x", encode_column(values[dtype], dtype).take(rows))
    entries = encoder.entries(np.array([0, 1, 4]), np.array([3, 1, 4]))
    first, empty, _ = (tensorflow_values(r)["x"] for r in join_examples([entries]))
    expected = [values[dtype][i] for i in (2, 2, 0)]
    assert first == ([v.encode() for v in expected] if dtype == "string" else expected)
    assert empty == []


def test_what_tensorflow_writes_is_read():
    feature = {
        "i": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, -2, 300])),
        "s": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a", b""])),
        "f": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
    }
    record = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    assert decode_example(record) == {"i": [1, -2, 300], "s": [b"a", b""], "f": [0.5]}


def test_only_the_wanted_features_are_read():
    record = encode_example({n: ("int64", [1]) for n in ("a", "b", "c")})
    assert set(raw_features(record, {b"b"})) == {"b"}


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x08\x01", b"\x0a\x80"])
def test_other_bytes_are_refused(data):
    with pytest.raises(ExampleError, match=r"Expected a tf\.train\.Example"):
        decode_example(data)


def test_a_number_that_is_cut_off_is_refused():
    with pytest.raises(ExampleError, match="end inside one"):
        decode_integers(b"\x01\x80")
