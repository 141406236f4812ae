"""Columns of values as slices of `tf.train.Example`, without TensorFlow.

The values of one feature of one request are consecutive rows of a sorted column. So a column is
encoded once, into one buffer with the offset of every row; a request's feature is then a header
and one slice of that buffer.

Wire format (tensorflow/core/example/{example,feature}.proto):

    Example  { Features features = 1 }
    Features { map<string, Feature> feature = 1 }
    Feature  { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }
    each list: value = 1; numbers are packed, bytes are one tagged element each
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

_FIELD = {"string": b"\x0a", "float32": b"\x12", "int64": b"\x1a"}
_KIND = {tag[0]: dtype for dtype, tag in _FIELD.items()}
_CHUNK = 1 << 18


class ExampleError(ValueError):
    """Bytes are not a `tf.train.Example`."""


def varint(value: int) -> bytes:
    """Returns a non-negative integer as a protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclasses.dataclass(frozen=True)
class EncodedColumn:
    """Rows of encoded values.

    Attributes:
        dtype: `"int64"`, `"float32"` or `"string"`.
        data: `[bytes]` uint8, the encoded values of all rows.
        offsets: `[rows + 1]`; row i is `data[offsets[i]:offsets[i + 1]]`.
    """

    dtype: str
    data: np.ndarray
    offsets: np.ndarray

    def take(self, rows: np.ndarray) -> EncodedColumn:
        """Returns the column of the given rows, in their order (repeats are allowed)."""
        starts = self.offsets[rows]
        sizes = self.offsets[rows + 1] - starts
        offsets = _offsets(sizes)
        shift = np.repeat(starts - offsets[:-1], sizes)
        return EncodedColumn(self.dtype, self.data[np.arange(offsets[-1]) + shift], offsets)

    def grouped(self, width: int) -> EncodedColumn:
        """Returns the column with every `width` consecutive rows as one row."""
        return EncodedColumn(self.dtype, self.data, self.offsets[::width])


def _offsets(sizes: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def encode_column(values: Sequence[object] | np.ndarray, dtype: str) -> EncodedColumn:
    """Encodes values, one a row.

    Args:
        values: integers, floats, or `str`/`bytes`.
        dtype: `"int64"`, `"float32"` or `"string"`.
    """
    if dtype == "float32":
        floats = np.asarray(values, "<f4")
        return EncodedColumn(dtype, floats.view(np.uint8), np.arange(len(floats) + 1) * 4)
    if dtype == "int64":
        return _encode_integers(np.asarray(values, np.int64))
    pieces = []
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8")
        pieces.append(b"\x0a" + varint(len(data)) + data)
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return EncodedColumn(dtype, np.frombuffer(b"".join(pieces), np.uint8), _offsets(sizes))


def _encode_integers(values: np.ndarray) -> EncodedColumn:
    """Varint-encodes int64 values: seven bits a byte, lowest first, top bit = more follow."""
    shifts = np.arange(10, dtype=np.uint64) * np.uint64(7)
    data, sizes = [np.zeros(0, np.uint8)], [np.zeros(0, np.int64)]
    for start in range(0, len(values), _CHUNK):  # bounds the [rows, 10] intermediate
        chunk = values[start : start + _CHUNK].view(np.uint64)
        groups = ((chunk[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
        size = 10 - np.argmax(groups[:, ::-1] != 0, axis=1)
        size[chunk == 0] = 1
        used = np.arange(10) < size[:, None]
        groups[:, :-1][used[:, 1:]] |= 0x80
        data.append(groups[used])
        sizes.append(size)
    return EncodedColumn("int64", np.concatenate(data), _offsets(np.concatenate(sizes)))


class FeatureEncoder:
    """Writes one feature's slices as entries of an Example's feature map.

    Args:
        name: the feature's key.
        column: its values, encoded.
    """

    def __init__(self, name: str, column: EncodedColumn):
        key = name.encode("utf-8")
        self._key = b"\x0a" + varint(len(key)) + key + b"\x12"
        self._dtype = column.dtype
        self._data = column.data.tobytes()
        self._offsets = column.offsets
        self._headers: dict[int, bytes] = {}

    def entries(self, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
        """Returns the map entries that hold the rows `[start, end)`, one a pair."""
        begins = self._offsets[starts].tolist()
        stops = self._offsets[ends].tolist()
        data, headers = self._data, self._headers
        for size in set((self._offsets[ends] - self._offsets[starts]).tolist()) - headers.keys():
            headers[size] = self._header(size)
        return [headers[e - b] + data[b:e] for b, e in zip(begins, stops, strict=True)]

    def _header(self, size: int) -> bytes:
        packed = b"\x0a" + varint(size) if self._dtype != "string" and size else b""
        in_list = len(packed) + size
        feature = _FIELD[self._dtype] + varint(in_list) + packed
        value = self._key + varint(len(feature) + size) + feature
        return b"\x0a" + varint(len(value) + size) + value


def join_examples(features: Iterable[list[bytes]]) -> Iterator[bytes]:
    """Yields one serialised Example a request from the map entries of every feature."""
    for parts in zip(*features, strict=True):
        body = b"".join(parts)
        yield b"\x0a" + varint(len(body)) + body


def encode_example(features: Mapping[str, tuple[str, Sequence[object]]]) -> bytes:
    """Serialises one Example; for a few records (columns are much faster for many).

    Args:
        features: `(dtype, values)` by name.

    Example:
        >>> record = encode_example({"item_id": ("int64", [3, 300]), "tag": ("string", ["a"])})
        >>> decode_example(record)["item_id"]
        [3, 300]
    """
    entries = []
    for name, (dtype, values) in features.items():
        encoder = FeatureEncoder(name, encode_column(values, dtype))
        entries.append(encoder.entries(np.array([0]), np.array([len(values)])))
    return next(join_examples(entries)) if entries else b"\x0a\x00"


def decode_example(record: bytes) -> dict[str, list[int] | list[float] | list[bytes]]:
    """Parses one Example written by this module or by TensorFlow into plain lists."""
    decoded: dict[str, list[int] | list[float] | list[bytes]] = {}
    for name, (dtype, payload) in raw_features(record).items():
        if dtype == "int64":
            decoded[name] = decode_integers(packed_values(payload)).tolist()
        elif dtype == "float32":
            decoded[name] = np.frombuffer(packed_values(payload), "<f4").tolist()
        else:
            decoded[name] = [payload[start:end] for _, start, end in _fields(payload, 0)]
    return decoded


def raw_features(record: bytes, names: set[bytes] | None = None) -> dict[str, tuple[str, bytes]]:
    """Returns dtype and still encoded list by feature name.

    Args:
        record: a serialised Example.
        names: read only these features, and stop when all are found.
    """
    found: dict[str, tuple[str, bytes]] = {}
    for _, start, end in _fields(record, 0):
        for _, entry, entry_end in _fields(record, start, end):
            parts = {tag: (s, e) for tag, s, e in _fields(record, entry, entry_end)}
            key = record[slice(*parts[0x0A])]
            if (names is None or key in names) and 0x12 in parts:
                for tag, s, e in _fields(record, *parts[0x12]):
                    found[key.decode("utf-8")] = (_KIND[tag], record[s:e])
                if names is not None and len(found) == len(names):
                    return found
    return found


def packed_values(payload: bytes) -> bytes:
    """Returns the packed numbers of an int64 or float list, as `raw_features` gives it."""
    return b"".join(payload[start:end] for _, start, end in _fields(payload, 0))


def decode_integers(data: bytes | np.ndarray) -> np.ndarray:
    """Decodes concatenated varints to int64."""
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if not len(array):
        return np.zeros(0, np.int64)
    last = np.flatnonzero(array < 0x80)
    if not len(last) or last[-1] != len(array) - 1:
        raise ExampleError("Expected packed varints, got bytes that end inside one.")
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(array)) - np.repeat(first, last - first + 1)
    parts = (array & 0x7F).astype(np.uint64) << (place * 7).astype(np.uint64)
    return np.add.reduceat(parts, first).view(np.int64)


def _fields(data: bytes, position: int, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yields `(tag, start, end)` of length-delimited fields."""
    end = len(data) if end is None else end
    while position < end:
        tag = data[position]
        position += 1
        length = shift = 0
        while True:
            if position >= end:
                raise ExampleError("Expected a tf.train.Example, got truncated bytes.")
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if tag & 7 != 2 or position + length > end:
            raise ExampleError("Expected a tf.train.Example, got other bytes.")
        yield tag, position, position + length
        position += length
