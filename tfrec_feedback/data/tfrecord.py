"""TFRecord files without TensorFlow: framing, checksums, and reading what is damaged.

A record is framed as

    uint64 length | uint32 masked crc32c of length | payload | uint32 masked crc32c of payload

in little endian; the mask rotates a checksum by 15 bits and adds a constant (TensorFlow,
`core/lib/io/record_writer.h` and `core/lib/hash/crc32c.h`).
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

_MASK_DELTA = 0xA282EAD8
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")


class CorruptRecordError(ValueError):
    """A TFRecord file is damaged.

    Attributes:
        file: path of the file.
        offset: byte offset of the damaged record's frame.
        reason: what is wrong with it.
    """

    def __init__(self, file: str | Path, offset: int, reason: str):
        self.file = str(file)
        self.offset = offset
        self.reason = reason
        super().__init__(
            f"Corrupt TFRecord {file} at byte {offset}: {reason}. Prepare the data again, or read "
            "it with damaged records skipped."
        )

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        return type(self), (self.file, self.offset, self.reason)


@dataclasses.dataclass
class ReadStats:
    """What reading files gave.

    Attributes:
        records: intact records.
        skipped: records left out because their payload is damaged.
        bytes_lost: bytes at the end of files that could not be read, after a damaged length or
            in a truncated last record.
        damage: one line for each damaged place: file, offset, reason.
    """

    records: int = 0
    skipped: int = 0
    bytes_lost: int = 0
    damage: list[str] = dataclasses.field(default_factory=list)


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """Returns a payload framed as one record."""
    length = _LENGTH.pack(len(payload))
    return b"".join(
        (length, _FOOTER.pack(_masked_crc(length)), payload, _FOOTER.pack(_masked_crc(payload)))
    )


def write_records(path: str | Path, records: Iterable[bytes]) -> tuple[int, int]:
    """Writes a TFRecord file that exists under its name only when it is complete.

    Args:
        path: the file; its folder must exist.
        records: the payloads.

    Returns:
        Number of records, and size of the file in bytes.

    Example:
        >>> write_records("part-00000.tfrecord", [b"one", b"two"])  # doctest: +SKIP
        (2, 38)
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    count = size = 0
    with open(temporary, "wb", buffering=1 << 20) as file:
        for payload in records:
            size += file.write(frame(payload))
            count += 1
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return count, size


def read_records(
    path: str | Path, *, skip_corrupt: bool = False, stats: ReadStats | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yields `(offset, payload)` of every record, with all checksums verified.

    Args:
        path: a TFRecord file.
        skip_corrupt: leave a record with a damaged payload out and go on; a damaged length or a
            truncated tail ends the file, because where the next record starts is then unknown.
        stats: counted into, where given.

    Raises:
        CorruptRecordError: at the first damage, unless `skip_corrupt`.
    """
    stats = ReadStats() if stats is None else stats
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            payload, end, reason = _read_one(file, size - offset)
            if reason:
                error = CorruptRecordError(path, offset, reason)
                if not skip_corrupt:
                    raise error
                stats.damage.append(f"{path} at byte {offset}: {reason}")
            if payload is not None:
                stats.records += 1
                yield offset, payload
            elif end:
                stats.skipped += 1
            else:
                stats.bytes_lost += size - offset
                return
            offset += end


def _read_one(file: BinaryIO, remaining: int) -> tuple[bytes | None, int, str]:
    """Returns payload, size of the frame (0: unknown), and what is wrong with it."""
    if remaining < _HEADER.size:
        return None, 0, f"truncated: {remaining} bytes left, a record starts with {_HEADER.size}"
    header = file.read(_HEADER.size)
    length, crc = _HEADER.unpack(header)
    if _masked_crc(header[: _LENGTH.size]) != crc:
        return None, 0, "the checksum of the record's length is wrong"
    needed = _HEADER.size + length + _FOOTER.size
    if needed > remaining:
        return None, 0, f"truncated: the record takes {needed} bytes, {remaining} are left"
    payload = file.read(length)
    if _masked_crc(payload) != _FOOTER.unpack(file.read(_FOOTER.size))[0]:
        return None, needed, "the checksum of the record's payload is wrong"
    return payload, needed, ""
