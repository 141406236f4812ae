import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2

from serving import wire
from serving.tensors import (
    TensorError,
    array_dtype,
    dtype_code,
    dtype_name,
    from_proto,
    to_proto,
)

NUMBERS = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]
NUMBERS += ["uint64", "bool"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def proto(dtype: str, shape: list[int], **values) -> wire.TensorProto:
    message = wire.TensorProto(dtype=dtype_code(dtype), **values)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)))
def test_numbers_come_back_as_they_were_sent(array):
    returned = from_proto(to_proto(array))
    assert returned.dtype == array.dtype
    np.testing.assert_array_equal(returned, array)


def test_a_tensor_is_written_where_a_message_has_it():
    request = wire.PredictRequest()
    written = to_proto([[1.5, 2.5]], request.inputs["x"])
    assert written == request.inputs["x"] == to_proto([[1.5, 2.5]])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)))
def test_tensorflow_reads_what_we_write_and_we_what_it_writes(array):
    theirs = tensor_pb2.TensorProto.FromString(to_proto(array).SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(theirs), array)
    written = tf.make_tensor_proto(array).SerializeToString()
    np.testing.assert_array_equal(from_proto(wire.TensorProto.FromString(written)), array)


@given(st.lists(st.binary(max_size=5), max_size=5))
def test_bytes_come_back_as_they_were_sent(values):
    array = np.empty(len(values), np.object_)
    array[:] = values
    assert from_proto(to_proto(array)).tolist() == values


def test_text_is_sent_as_utf_8():
    assert from_proto(to_proto(np.array([["é", "b"]]))).tolist() == [["é".encode(), b"b"]]
    assert from_proto(to_proto(np.array(["é", b"b"], object))).tolist() == ["é".encode(), b"b"]


def test_big_endian_and_strided_arrays_are_sent_in_order():
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert from_proto(to_proto(array)).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", {"float_val": [0.5, 1.5]}),
        ("float64", {"double_val": [0.5, 1.5]}),
        ("int32", {"int_val": [-1, 1]}),
        ("int8", {"int_val": [-128, 127]}),
        ("uint8", {"int_val": [0, 255]}),
        ("int64", {"int64_val": [-(2**63), 2**63 - 1]}),
        ("bool", {"bool_val": [True, False]}),
        ("uint32", {"uint32_val": [0, 2**32 - 1]}),
        ("uint64", {"uint64_val": [0, 2**64 - 1]}),
        ("string", {"string_val": [b"a", b""]}),
    ],
)
def test_typed_lists_are_read(dtype, values):
    array = from_proto(proto(dtype, [2], **values))
    assert array.tolist() == next(iter(values.values()))
    assert array_dtype(array) == dtype


def test_a_single_value_stands_for_the_whole_tensor():
    assert from_proto(proto("int64", [2, 2], int64_val=[7])).tolist() == [[7, 7], [7, 7]]


def test_empty_tensors_keep_their_shape():
    assert from_proto(proto("float32", [0, 4])).shape == (0, 4)
    assert from_proto(proto("string", [2, 0])).shape == (2, 0)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto("int64", [2], tensor_content=b"1234567"), "7 bytes; shape [2] of int64 needs 16"),
        (proto("int64", [2], int64_val=[1, 2, 3]), "int64_val holds 3 values; shape [2] needs 2"),
        (proto("int64", [2]), "holds 0 values"),
        (proto("string", [3], string_val=[b"a", b"b"]), "string_val holds 2 values"),
        # A small message would stand for a large one.
        (proto("string", [70_000], string_val=[b"record"]), "shape [70000] needs 70000"),
        (proto("string", [1], tensor_content=b"abc"), "read from string_val"),
        (proto("int64", [-1], tensor_content=b"12345678"), "negative dimension"),
        (proto("int64", [2**62, 2**62], int64_val=[1]), "too large"),
        (proto("int64", [0, 2**62, 2**62]), "too large"),
        (proto("int64", [1] * 40, int64_val=[1]), "too large"),
        (proto("int64", [2**40], int64_val=[1]), "up to 16777216 elements"),
        (proto("int8", [1], int_val=[128]), "outside the range of int8"),
        (proto("uint8", [1], int_val=[-1]), "outside the range of uint8"),
        (wire.TensorProto(dtype=99), "DataType 99"),
        (wire.TensorProto(), "DataType 0"),
        (wire.TensorProto(dtype=9, tensor_shape={"unknown_rank": True}), "unknown rank"),
    ],
)
def test_malformed_tensors_are_refused_with_the_reason(message, expected):
    with pytest.raises(TensorError) as error:
        from_proto(message)
    assert expected in str(error.value)


def test_arrays_without_a_wire_type_are_refused():
    with pytest.raises(TensorError, match="complex128 cannot be sent"):
        to_proto(np.array([1j]))
    with pytest.raises(TensorError, match="Expected bytes or text"):
        to_proto(np.array([b"a", 3], object))


def test_type_numbers_are_tensorflows():
    for name in [*NUMBERS, "string"]:
        assert dtype_code(name) == tf.as_dtype(name).as_datatype_enum
        assert dtype_name(dtype_code(name)) == name
