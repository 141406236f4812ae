"""Tensors on the wire: numpy arrays to `TensorProto` messages and back.

Numbers travel as raw little-endian bytes (`tensor_content`), which costs a copy and nothing else;
text travels as `string_val`. Messages of other clients may use the typed lists (`float_val`, ...).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serving import wire

_STRING = 7
# DataType number -> (name, numpy type on the wire, field of the typed list)
_NUMBERS: dict[int, tuple[str, np.dtype[Any], str]] = {
    1: ("float32", np.dtype("<f4"), "float_val"),
    2: ("float64", np.dtype("<f8"), "double_val"),
    3: ("int32", np.dtype("<i4"), "int_val"),
    4: ("uint8", np.dtype("u1"), "int_val"),
    5: ("int16", np.dtype("<i2"), "int_val"),
    6: ("int8", np.dtype("i1"), "int_val"),
    9: ("int64", np.dtype("<i8"), "int64_val"),
    10: ("bool", np.dtype("?"), "bool_val"),
    17: ("uint16", np.dtype("<u2"), "int_val"),
    22: ("uint32", np.dtype("<u4"), "uint32_val"),
    23: ("uint64", np.dtype("<u8"), "uint64_val"),
}
_CODES = {entry[1]: code for code, entry in _NUMBERS.items()}
_NAMES = {entry[1]: entry[0] for entry in _NUMBERS.values()}
_MAX_SIZE = (2**63 - 1) // 8
# One value may stand for a whole tensor: without a bound a message of 20 bytes fills the memory.
_MAX_REPEATED = 1 << 24


class TensorError(ValueError):
    """An array or a message is not a tensor that can be sent or read."""


def dtype_name(code: int) -> str:
    """Returns the name of a DataType number, e.g. `int64` for 9; `DataType 99` when unknown."""
    if code == _STRING:
        return "string"
    return _NUMBERS[code][0] if code in _NUMBERS else f"DataType {code}"


def dtype_code(name: str) -> int:
    """Returns the DataType number of `int64`, `string`, `float32`, ..."""
    if name == "string":
        return _STRING
    return _CODES[np.dtype(name).newbyteorder("<")]


def array_dtype(array: np.ndarray) -> str:
    """Returns the DataType name of an array; byte and text arrays are `string`."""
    if (name := _NAMES.get(array.dtype)) is not None:  # writing a numpy type out takes far longer
        return name
    return "string" if array.dtype.kind in "OSU" else str(array.dtype.newbyteorder("="))


def to_proto(array: Any, proto: Any = None) -> Any:
    """Encodes an array as a `TensorProto`.

    Args:
        array: numbers, booleans, or (as bytes, text or objects of either) strings; any shape.
        proto: an empty message to write to; a new one when left out. A message of a map, written
            where it lies, saves a copy.

    Returns:
        The message.

    Raises:
        TensorError: when the array's type does not exist on the wire.

    Example:
        >>> from_proto(to_proto([[1, 2], [3, 4]])).tolist()
        [[1, 2], [3, 4]]
    """
    array = np.asarray(array)
    proto = wire.TensorProto() if proto is None else proto
    add = proto.tensor_shape.dim.add
    for size in array.shape:
        add(size=size)
    if array.dtype.kind in "OSU":
        proto.dtype = _STRING
        proto.string_val.extend(_to_bytes(value) for value in array.ravel().tolist())
        return proto
    wire_type = array.dtype if array.dtype in _CODES else array.dtype.newbyteorder("<")
    if wire_type not in _CODES:
        raise TensorError(
            f"Arrays of type {array.dtype} cannot be sent; convert to one of "
            f"{sorted(name for name, _, _ in _NUMBERS.values())} or bytes."
        )
    proto.dtype = _CODES[wire_type]
    proto.tensor_content = array.astype(wire_type, copy=False).tobytes()
    return proto


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    raise TensorError(f"Expected bytes or text in a string tensor, got {value!r}.")


def from_proto(proto: Any) -> np.ndarray:
    """Decodes a `TensorProto`.

    Args:
        proto: the message. Its values are either raw bytes, or a typed list with one value an
            element or, of numbers, a single value for all of them.

    Returns:
        The array, of bytes objects where the tensor holds strings. It may be read-only.

    Raises:
        TensorError: for an unknown type, a shape that is no shape, and a wrong amount of content.
    """
    shape = _shape(proto.tensor_shape)
    if proto.dtype == _STRING:
        if proto.tensor_content:
            raise TensorError("String tensors are read from string_val, not tensor_content.")
        return _strings(proto.string_val, shape)
    if proto.dtype not in _NUMBERS:
        raise TensorError(
            f"Unknown or unsupported {dtype_name(proto.dtype)}; expected string or one of "
            f"{sorted(name for name, _, _ in _NUMBERS.values())}."
        )
    name, wire_type, field = _NUMBERS[proto.dtype]
    if proto.tensor_content:
        return _from_content(proto.tensor_content, name, wire_type, shape)
    values = getattr(proto, field)[:]
    if field == "int_val" and values:  # the one list that serves several types
        limits = np.iinfo(wire_type)
        if min(values) < limits.min or max(values) > limits.max:
            raise TensorError(f"{field} holds values outside the range of {name}.")
    return _repeat(np.array(values, wire_type), shape, field)


def _shape(proto: Any) -> tuple[int, ...]:
    if proto.unknown_rank:
        raise TensorError("The tensor's shape has unknown rank; a value needs a full shape.")
    shape = tuple([dim.size for dim in proto.dim])
    if shape and min(shape) < 0:
        raise TensorError(f"The tensor's shape {list(shape)} has a negative dimension.")
    # Zeros are left out of the product: they would hide an overflow that numpy still refuses.
    if math.prod([size for size in shape if size]) > _MAX_SIZE or len(shape) > 32:
        raise TensorError(f"The tensor's shape {list(shape)} is too large for any memory.")
    return shape


def _from_content(
    content: bytes, name: str, wire_type: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray:
    expected = math.prod(shape) * wire_type.itemsize
    if len(content) != expected:
        raise TensorError(
            f"tensor_content holds {len(content)} bytes; shape {list(shape)} of {name} needs "
            f"{expected}."
        )
    if name == "bool":
        return (np.frombuffer(content, np.uint8) != 0).reshape(shape)
    return np.frombuffer(content, wire_type).reshape(shape)


def _repeat(values: np.ndarray, shape: tuple[int, ...], field: str) -> np.ndarray:
    size = math.prod(shape)
    if len(values) == size:
        return values.reshape(shape)
    if len(values) == 1 and 0 < size <= _MAX_REPEATED:
        return np.broadcast_to(values, size).reshape(shape)
    raise TensorError(
        f"{field} holds {len(values)} values; shape {list(shape)} needs {size} (or a single value "
        f"for all, up to {_MAX_REPEATED} elements)."
    )


def _strings(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    # A single record for all would be a small message that costs as much as a large one.
    if len(values) != math.prod(shape):
        raise TensorError(
            f"string_val holds {len(values)} values; shape {list(shape)} needs {math.prod(shape)}."
        )
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape(shape)
