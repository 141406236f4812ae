"""Implicit feedback for collaborative filtering: who interacted with what, and nothing else.

Beside the impression log (`tfrec_feedback.data.events`), which says what was shown, there is data
that only says what was taken: (user, item). Some interactions are *false positives*: the user was
not satisfied. Training and validation keep them, the clean test split has none; that an interaction
is known to be false is for analysis, and for models that are told so, never an input.

A source adapter (`tfrec_feedback.data.sources.load_interaction_source`) gives `Interactions`;
`prepare_interactions` writes them as Parquet, in indices of the catalogue.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.folder import check_output, claim_folder, complete_folder
from tfrec_feedback.data.manifest import (
    FALSE_POSITIVE,
    INTERACTION_SPLITS,
    SCHEMA_FILE,
    Manifest,
    OptionValue,
    Report,
    Shard,
    Split,
)
from tfrec_feedback.data.vocabulary import vocabulary_file, write_vocabularies
from tfrec_feedback.schema import Feature, FeedbackSequence, Schema, Vocabulary, suggest

COLUMNS = ("user", "item", "clean")
USER, ITEM, HISTORY = "user_id", "item_id", "click"
"""Names of the schema's context feature, candidate feature and history."""


@dataclasses.dataclass
class Interactions:
    """Interactions as a source adapter found them.

    Attributes:
        name: name of the adapter.
        splits: frames by name, some of `INTERACTION_SPLITS` and always `train`: raw ids `user` and
            `item` (int64), `clean` (bool: not known to be a false positive); no pair twice.
        report: what reading found.
        files: what was read.
        settings: options that shape the data, for the fingerprint.

    Raises:
        EventLogError: for unknown splits or columns, and when there is nothing to train on.

    Example:
        >>> train = pd.DataFrame({"user": [7, 7], "item": [1, 2], "clean": [True, False]})
        >>> Interactions("mine", {"train": train}, Report(rows=2)).catalogue()
        (array([7]), array([1, 2]))
    """

    name: str
    splits: Mapping[str, pd.DataFrame]
    report: Report
    files: tuple[Path, ...] = ()
    settings: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, frame in self.splits.items():
            if name not in INTERACTION_SPLITS:
                raise EventLogError(
                    f"{self.name}: unknown split {name!r}; expected some of "
                    f"{list(INTERACTION_SPLITS)}.{suggest(name, INTERACTION_SPLITS)}"
                )
            if tuple(frame.columns) != COLUMNS:
                raise EventLogError(
                    f"{self.name}, split {name!r}: expected the columns {list(COLUMNS)}, got "
                    f"{list(frame.columns)}."
                )
        if "train" not in self.splits or self.splits["train"].empty:
            raise EventLogError(
                f"{self.name}: there is no train interaction, so nothing to train on."
                + "".join(f" {example}" for example in self.report.examples[:1])
            )

    def catalogue(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all users and of all items, of any split, sorted."""
        users = np.unique(np.concatenate([f["user"].to_numpy() for f in self.splits.values()]))
        items = np.unique(np.concatenate([f["item"].to_numpy() for f in self.splits.values()]))
        return users, items


def drop_repeated(frame: pd.DataFrame, report: Report) -> pd.DataFrame:
    """Keeps the first row of every (user, item) and counts the others into the report."""
    repeated = frame.duplicated(["user", "item"])
    report.duplicates += int(repeated.sum())
    return frame[~repeated].reset_index(drop=True)


def prepare_interactions(
    source: Interactions, output: str | Path, overwrite: bool = False
) -> Manifest:
    """Writes a folder of interactions: a Parquet file a split, schema, vocabularies and manifest.

    The same source gives the same bytes. The manifest is written last: until then, and when
    anything fails, the folder does not count as prepared. Files `<split>.parquet` have the columns
    `user` and `item` (int32, line numbers of the vocabularies) and `clean` (bool).

    The vocabularies list every id of any split, where those of request logs list train values
    alone: a benchmark's catalogue is known, and its test ranks all of it.

    Args:
        source: the interactions, from `tfrec_feedback.data.sources.load_interaction_source`.
        output: the folder to write.
        overwrite: replace data prepared earlier, of any kind.

    Returns:
        The manifest, of format `"interactions"`.

    Raises:
        FileExistsError: when the folder holds prepared data and `overwrite` is not set, the files
            that are read, or others where this would write.
        ManifestError: when the folder's manifest is not one this version reads.

    Example:
        >>> import tempfile
        >>> train = pd.DataFrame({"user": [7, 7], "item": [1, 2], "clean": [True, False]})
        >>> source = Interactions("mine", {"train": train}, Report(rows=2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = prepare_interactions(source, folder)
        >>> manifest.split("train").feedback
        {'click': 2, 'false_positive': 1}
    """
    output = Path(output)
    check_output(output, overwrite, source.files)
    users, items = source.catalogue()
    columns = {
        name: _indices(source.splits[name], users, items)
        for name in INTERACTION_SPLITS
        if name in source.splits
    }
    schema = interaction_schema(
        len(users), len(items), int(np.bincount(columns["train"]["user"]).max())
    )
    tokens = {USER: tuple(users.tolist()), ITEM: tuple(items.tolist())}
    files = [SCHEMA_FILE, *map(_split_file, columns), *map(vocabulary_file, tokens)]
    claim_folder(output, files)
    splits = {name: _write_split(output, name, table) for name, table in columns.items()}
    write_vocabularies(output, tokens)
    schema.to_json(output / SCHEMA_FILE)
    manifest = Manifest(
        directory=output,
        format="interactions",
        source=source.name,
        fingerprint=_fingerprint(source, users, items, columns),
        options=dict(source.settings),
        report=source.report,
        splits=splits,
    )
    complete_folder(manifest, output)
    return manifest


def interaction_schema(num_users: int, num_items: int, longest_history: int) -> Schema:
    """Returns the schema of interactions: user, item and the user's train items as clicks.

    Args:
        num_users: U, lines of `vocabularies/user_id.txt`.
        num_items: I, lines of `vocabularies/item_id.txt`.
        longest_history: most train interactions of a user: no history is ever cut.
    """

    def feature(name: str, size: int) -> Feature:
        return Feature(name, Vocabulary("int64", file=vocabulary_file(name), size=size))

    return Schema(
        context=(feature(USER, num_users),),
        candidate=(feature(ITEM, num_items),),
        histories=(FeedbackSequence(HISTORY, (ITEM,), max_length=longest_history),),
    )


def _indices(frame: pd.DataFrame, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "user": np.searchsorted(users, frame["user"].to_numpy()).astype(np.int32),
        "item": np.searchsorted(items, frame["item"].to_numpy()).astype(np.int32),
        "clean": frame["clean"].to_numpy(bool),
    }


def _split_file(name: str) -> str:
    return f"{name}.parquet"


def _write_split(directory: Path, name: str, columns: Mapping[str, np.ndarray]) -> Split:
    path = directory / _split_file(name)
    pq.write_table(pa.table(dict(columns)), path)
    rows = len(columns["user"])
    return Split(
        shards=[Shard(file=path.name, records=rows, bytes=path.stat().st_size)],
        requests=rows,
        candidates=rows,
        feedback={"click": rows, FALSE_POSITIVE: rows - int(columns["clean"].sum())},
        candidates_histogram={1: rows} if rows else {},
        users=len(np.unique(columns["user"])),
        items=len(np.unique(columns["item"])),
    )


def _fingerprint(
    source: Interactions,
    users: np.ndarray,
    items: np.ndarray,
    columns: Mapping[str, Mapping[str, np.ndarray]],
) -> str:
    """Returns the sha256 of what was read, not of its files: rows of one order are one data set."""
    described = {"source": source.name, "options": dict(source.settings), "splits": list(columns)}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for values in (users, items, *(v for table in columns.values() for v in table.values())):
        digest.update(len(values).to_bytes(8, "little") + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
