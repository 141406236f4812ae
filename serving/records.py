"""Request records (serialised `tf.train.Example`s in TFRecord files), read without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from serving import wire
from serving.versions import version_number
from tfrec_feedback.requests import SESSION, RequestError
from tfrec_feedback.schema import Feature, Schema

GOLDEN_FILE = "assets.extra/golden_requests.tfrecord"
"""Where a published version keeps its golden requests."""
# A record is: length (8 bytes, little-endian), its checksum (4), the data, its checksum (4).
_LENGTH_BYTES = 8
_CHECKSUM_BYTES = 4


def read_records(path: str | Path) -> Iterator[bytes]:
    """Yields the records of an uncompressed TFRecord file.

    Lengths are checked against the file, checksums are not.

    Args:
        path: the file.

    Yields:
        The serialised records.

    Raises:
        FileNotFoundError: when there is no such file.
        RequestError: when the file ends inside a record, or is no TFRecord file.
    """
    path = Path(path)
    remaining = path.stat().st_size
    with path.open("rb") as file:
        index = 0
        while header := file.read(_LENGTH_BYTES + _CHECKSUM_BYTES):
            remaining -= _LENGTH_BYTES + _CHECKSUM_BYTES
            length = int.from_bytes(header[:_LENGTH_BYTES], "little")
            if remaining < length + _CHECKSUM_BYTES:
                raise RequestError(
                    f"{path}: record {index} claims more bytes than the file has left. The file "
                    "is cut short, compressed, or no TFRecord file; write it again, uncompressed."
                )
            data = file.read(length)
            file.read(_CHECKSUM_BYTES)
            remaining -= length + _CHECKSUM_BYTES
            yield data
            index += 1


def golden_file(path: Path) -> Path:
    """Returns the golden requests of a published model.

    Args:
        path: folder of a version, or of the versions, of which the newest counts.

    Returns:
        The file; a path that is no folder comes back as it is.

    Raises:
        RequestError: when the folder has no golden requests.
    """
    if not path.is_dir():
        return path
    # Numbers, not names: 10 is newer than 9, and what is half published is no number.
    found = [(version_number(entry.name), entry) for entry in path.iterdir()]
    versions = [(number, entry) for number, entry in found if number is not None]
    version = max(versions, default=(0, path))[1]
    if not (version / GOLDEN_FILE).is_file():
        raise RequestError(
            f"{version} holds no {GOLDEN_FILE}: expected the folder of a published version, or of "
            "its versions. Publish with `python -m pipelines.export`, or give a file of requests."
        )
    return version / GOLDEN_FILE


def parse_record(record: bytes, index: int = 0) -> dict[str, list[int] | list[float] | list[bytes]]:
    """Returns the features of a record by name.

    Args:
        record: a serialised `tf.train.Example`.
        index: its number, for the error message.

    Raises:
        RequestError: when the bytes are not an Example.
    """
    try:
        example = wire.Example.FromString(record)
    except DecodeError as error:
        raise RequestError(f"record {index} is not a serialised tf.train.Example.") from error
    return {
        name: list(feature.int64_list.value)
        or list(feature.float_list.value)
        or list(feature.bytes_list.value)
        for name, feature in example.features.feature.items()
    }


def num_candidates(record: bytes, index: int = 0) -> int:
    """Returns how many candidates a request record holds.

    Args:
        record: a serialised `tf.train.Example`.
        index: its number, for the error message.

    Raises:
        RequestError: when the bytes are not an Example with one `num_candidates`.
    """
    value = parse_record(record, index).get("num_candidates", [])
    if len(value) != 1 or not isinstance(value[0], int) or value[0] < 0:
        raise RequestError(
            f"record {index}: expected one integer 'num_candidates', got {value}. Write records "
            "with `python -m pipelines.prepare`."
        )
    return value[0]


def decode_record(schema: Schema, record: bytes, index: int = 0) -> dict[str, Any]:
    """Returns a record as the request that a person would write.

    Args:
        schema: what the record holds.
        record: a serialised `tf.train.Example`.
        index: its number, for the error message.

    Returns:
        A mapping with `context`, `histories` and `candidates`, as `encode_requests` takes it.

    Raises:
        RequestError: when the bytes are not a record of the schema.
    """
    values = parse_record(record, index)
    count = num_candidates(record, index)
    columns = _Columns(values, index)
    request: dict[str, Any] = {
        "context": {f.name: columns.of(f, f.name, 1)[0] for f in schema.context},
        "histories": {},
        "candidates": {f.name: columns.of(f, f.name, count) for f in schema.candidate},
    }
    for sequence in schema.histories:
        length = (values.get(sequence.length) or [0])[0]
        if not length:
            continue
        history = {
            name: columns.of(schema.feature(name), f"{sequence.name}_{name}", int(length))
            for name in sequence.features
        }
        if sequence.num_sessions:
            history[SESSION] = list(values.get(sequence.session, []))
        request["histories"][sequence.name] = history
    return request


class _Columns:
    """The features of one record, cut into entries."""

    def __init__(self, values: Mapping[str, Any], index: int):
        self._values = values
        self._index = index

    def of(self, feature: Feature, name: str, entries: int) -> list[Any]:
        """Returns one value an entry, or a list of them where the feature is multi-valued."""
        flat = [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else v
            for v in self._values.get(name, [])
        ]
        width = feature.max_values
        if len(flat) != entries * width:
            raise RequestError(
                f"record {self._index}: {name!r} holds {len(flat)} values, the schema says "
                f"{entries * width}. Record and schema do not belong together."
            )
        if width == 1:
            return flat
        counts = self._values.get(f"{name}_count", [])
        return [flat[n * width : n * width + k] for n, k in enumerate(counts)]
