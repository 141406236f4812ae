"""The manifest of a prepared data folder: which shards belong to it, and what they hold.

`manifest.json` is written last, so a folder without one is unfinished. It holds nothing that
changes between two runs on the same input (no dates, no host names, no absolute paths).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfrec_feedback.schema import Schema, suggest

MANIFEST_FILE = "manifest.json"
SCHEMA_FILE = "schema.json"
SPLITS = ("train", "validation", "test")
INTERACTION_SPLITS = ("train", "validation", "validation_clean", "test", "test_noisy")
"""Splits of interactions: `validation` and `test_noisy` hold false positives, as `train` does."""

FALSE_POSITIVE = "false_positive"
"""Clicks that are known to be mistakes: a count of the manifest, a label beside the tasks'."""

Format = Literal["requests", "interactions"]
_READERS = {
    "requests": "tfrec_feedback.data.dataset.request_dataset",
    "interactions": "tfrec_feedback.data.interaction_dataset.load_interactions",
}

OptionValue = int | float | str | bool | None | list[float] | list[str]


class ManifestError(ValueError):
    """A prepared data folder is missing, unfinished, or not as its manifest says."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Shard(_Model):
    """One TFRecord file of requests, or one Parquet file of interactions.

    Attributes:
        file: path relative to the folder, with forward slashes.
        records: requests, or interactions, in the file.
        bytes: size of the file.
    """

    file: str
    records: int
    bytes: int


class Split(_Model):
    """The shards of one split, and what they hold in total.

    Attributes:
        shards: the files, in order.
        requests: number of requests.
        candidates: number of candidates (exposures) over all requests.
        feedback: exposures by kind: `click`, `like`, `dislike` count flags (an exposure may have
            several); `unclick` counts exposures without any. Of interactions: `click`, all of
            them. `false_positive`, clicks that are known to be false, is there where the data
            say which: in interactions, and in simulated logs.
        first_timestamp: time of the earliest request, milliseconds since 1970.
        last_timestamp: time of the latest request.
        candidates_histogram: requests by their number of candidates.
        users: distinct users; counted for interactions alone.
        items: distinct items; counted for interactions alone.
    """

    shards: list[Shard]
    requests: int
    candidates: int
    feedback: dict[str, int]
    first_timestamp: int | None = None
    last_timestamp: int | None = None
    candidates_histogram: dict[int, int]
    users: int | None = None
    items: int | None = None


class Report(_Model):
    """What reading the raw log found.

    Attributes:
        rows: rows read, without headers; each is malformed, a duplicate, or kept.
        malformed: dropped rows by reason.
        examples: the first malformed rows: file, line, column, what was expected and what came.
        duplicates: exact repetitions of an earlier row, dropped.
    """

    rows: int = 0
    malformed: dict[str, int] = Field(default_factory=dict)
    examples: list[str] = Field(default_factory=list)
    duplicates: int = 0


class Manifest(_Model):
    """What a prepared data folder holds.

    Attributes:
        directory: where the folder is; set when it is loaded or written, not stored.
        format: what the shards hold: `"requests"` (TFRecord), or `"interactions"` (Parquet) for
            collaborative filtering. An interaction counts as a request of one candidate.
        source: name of the log adapter.
        fingerprint: sha256 of the source's contents and of the options that shape the output.
        options: those options (`history_length`, `lag_seconds`, `seed`, ...). What a given schema
            decided is as it decided; None where its histories differ.
        report: what reading the log found.
        splits: `train`, `validation`, `test`; of interactions, those there are of
            `INTERACTION_SPLITS`.
    """

    directory: Path = Field(default=Path(), exclude=True)
    format: Format = "requests"
    source: str
    fingerprint: str
    options: dict[str, OptionValue]
    report: Report
    splits: dict[str, Split]

    def schema(self) -> Schema:  # type: ignore[override]
        """Reads the folder's `schema.json`; its vocabularies are looked up in the folder."""
        return Schema.from_json(self.directory / SCHEMA_FILE)

    @property
    def knows_false_positives(self) -> bool:
        """Whether the data say which clicks were mistakes."""
        return FALSE_POSITIVE in self.split("train").feedback

    def require(self, format: Format) -> None:
        """Raises `ManifestError` when the folder holds the other kind of data."""
        if self.format != format:
            raise ManifestError(
                f"{self.directory} holds {self.format} (source {self.source!r}), and {format} are "
                f"needed here. {self.format.capitalize()} are read by {_READERS[self.format]}."
            )

    def split(self, name: str) -> Split:
        """Returns split `name`, or raises `ManifestError` naming the ones there are."""
        if name not in self.splits:
            raise ManifestError(
                f"Unknown split {name!r}; {self.directory} has {list(self.splits)}."
                f"{suggest(name, self.splits)}"
            )
        return self.splits[name]

    def shard_paths(self, split: str) -> list[Path]:
        """Returns the files of a split, in order."""
        return [self.directory / shard.file for shard in self.split(split).shards]


def load_manifest(directory: str | Path) -> Manifest:
    """Reads a folder's manifest and checks that every listed shard is there in full.

    Args:
        directory: the output of `python -m pipelines.prepare`.

    Returns:
        The manifest, with its `directory` set.

    Raises:
        ManifestError: when there is no (readable) manifest, or a shard is missing or of
            another size.

    Example:
        >>> manifest = load_manifest("data/kuairand")  # doctest: +SKIP
        >>> manifest.shard_paths("train")  # doctest: +SKIP
    """
    manifest = read_manifest(directory)
    for split in manifest.splits.values():
        for shard in split.shards:
            _check_shard(manifest.directory / shard.file, shard)
    return manifest


def read_manifest(directory: str | Path) -> Manifest:
    """Reads a folder's manifest, whether its shards are there or not; see `load_manifest`.

    Raises:
        ManifestError: when there is no (readable) manifest.
    """
    path = Path(directory) / MANIFEST_FILE
    if not path.is_file():
        raise ManifestError(
            f"No {MANIFEST_FILE} in {directory}: the folder is not prepared data, or preparing it "
            "was interrupted. Run `python -m pipelines.prepare --source NAME --input PATH "
            f"--output {directory}`."
        )
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ManifestError(
            f"{path} is not a manifest this version reads: {error}. Prepare the data again, into "
            "another folder."
        ) from error
    manifest.directory = Path(directory)
    return manifest


def _check_shard(path: Path, shard: Shard) -> None:
    again = "Prepare the data again with `--overwrite`, or copy the whole folder."
    if not path.is_file():
        raise ManifestError(f"Shard {path} is listed in the manifest but missing. {again}")
    size = path.stat().st_size
    if size != shard.bytes:
        raise ManifestError(
            f"Shard {path} has {size} bytes; the manifest says {shard.bytes}. {again}"
        )


def save_manifest(manifest: Manifest, directory: str | Path) -> Path:
    """Writes `manifest.json` atomically (a reader sees all of it or none) and returns its path."""
    path = Path(directory) / MANIFEST_FILE
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    write_atomically(path, text.encode("utf-8"))
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a hidden temporary name, and renames it when it is on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
