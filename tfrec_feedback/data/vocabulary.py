"""Vocabularies from the train split, and the schema of a prepared log.

Only train rows are counted: a value that first appears later must look to the model as it will
look in production, unknown.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec_feedback.data.columns import convert, is_multi_valued
from tfrec_feedback.data.events import FLAGS, EventLogError, Source
from tfrec_feedback.data.history import FEEDBACKS, KINDS
from tfrec_feedback.schema import (
    Buckets,
    Encoding,
    Feature,
    FeedbackSequence,
    Schema,
    Vocabulary,
    suggest,
)

VOCABULARIES = "vocabularies"
MAX_VALUES = 8
"""Most values kept of a multi-valued feature whose width nobody declared."""
_NUM_BUCKETS = 16

Tokens = tuple[str, ...] | tuple[int, ...]


def count_values(column: pd.Series) -> collections.Counter:
    """Counts the values of a column; of a multi-valued one, the elements of its tuples."""
    codes, distinct = pd.factorize(column)
    counts = np.bincount(codes, minlength=len(distinct)).tolist()
    counter: collections.Counter = collections.Counter()
    for value, count in zip(distinct.tolist(), counts, strict=True):
        for element in value if isinstance(value, tuple) else (value,):
            counter[element] += count
    return counter


def build_vocabulary(columns: Iterable[pd.Series], min_count: int = 1) -> Tokens:
    """Returns the tokens of one table, by falling frequency, then by value.

    Empty text (missing) and text with line breaks are no tokens: they map to the unknown row.

    Args:
        columns: train values of every feature that uses the table.
        min_count: rarer values are left to the unknown row.

    Example:
        >>> build_vocabulary([pd.Series(["b", "a", "b", "", "c"])])
        ('b', 'a', 'c')
    """
    counter: collections.Counter = collections.Counter()
    for column in columns:
        counter.update(count_values(column))
    kept = [
        (-count, token)
        for token, count in counter.items()
        if count >= min_count and not (isinstance(token, str) and _unlistable(token))
    ]
    return tuple(token for _, token in sorted(kept))


def _unlistable(token: str) -> bool:
    return token == "" or "\n" in token or "\r" in token


def quantile_buckets(values: np.ndarray) -> Buckets:
    """Returns buckets that hold about equal shares of the values (at most 16)."""
    cuts = np.quantile(values.astype(np.float64), np.arange(1, _NUM_BUCKETS) / _NUM_BUCKETS)
    return Buckets(tuple(np.unique(cuts.astype(np.float32)).tolist()))


def infer_schema(
    source: Source,
    train_rows: np.ndarray,
    history_length: int,
    num_samples: int = 0,
    histories: Sequence[str] = FEEDBACKS,
    num_sessions: int = 0,
) -> Schema:
    """Describes a source's columns: integers and text by vocabulary, floats by quantile buckets.

    Vocabularies are left to `fill_vocabularies`.

    Args:
        source: the log; its `encodings` go before what is inferred.
        train_rows: rows to learn bucket boundaries from.
        history_length: T of every history.
        num_samples: K of every history, see `FeedbackSequence`.
        histories: which histories, of `KINDS`.
        num_sessions: sessions of every history that are told apart, see `FeedbackSequence`.

    Raises:
        EventLogError: for a history that cannot be built.
    """
    check_histories(histories)

    def feature(name: str) -> Feature:
        column = source.events[name]
        width = 1
        if is_multi_valued(column):
            width = min(max(int(column.map(len).max()), 2), MAX_VALUES)
        encoding = source.encodings.get(name) or _infer_encoding(name, column, train_rows)
        return Feature(name, encoding, max_values=width)

    return Schema(
        context=tuple(feature(name) for name in source.context_columns),
        candidate=tuple(feature(name) for name in source.candidate_columns),
        histories=tuple(
            FeedbackSequence(
                kind, source.history_features, history_length, num_samples, num_sessions
            )
            for kind in histories
        ),
    )


def _infer_encoding(name: str, column: pd.Series, train_rows: np.ndarray) -> Encoding:
    if column.dtype.kind == "f":
        return quantile_buckets(column.to_numpy()[train_rows])
    whole = column.dtype.kind in "iu"
    if is_multi_valued(column):
        whole = all(isinstance(v, int) for v in count_values(column))
    # The size is not known yet; 1 stands for it until the tokens are counted.
    return Vocabulary("int64" if whole else "string", file=vocabulary_file(name), size=1)


def check_histories(names: Iterable[str]) -> None:
    """Raises `EventLogError` when a history cannot be built from a log, naming the closest."""
    for name in names:
        if name not in KINDS:
            raise EventLogError(
                f"History {name!r} cannot be built; expected some of {list(KINDS)}."
                f"{suggest(name, KINDS)}"
            )


def check_schema(schema: Schema, source: Source) -> None:
    """Raises `EventLogError` when a given schema asks for what the source does not have."""
    for part, columns, features in (
        ("context", source.context_columns, schema.context),
        ("candidate", source.candidate_columns, schema.candidate),
    ):
        for feature in features:
            if feature.name not in columns:
                raise EventLogError(
                    f"The schema's {part} feature {feature.name!r} is not a {part} column of "
                    f"source {source.name!r}, which has {list(columns)}."
                    f"{suggest(feature.name, columns)}"
                )
    check_histories(sequence.name for sequence in schema.histories)
    for flag in schema.feedbacks:
        if flag not in FLAGS:
            raise EventLogError(
                f"The schema's tasks use feedback {flag!r}, which the log does not have; expected "
                f"some of {list(FLAGS)}.{suggest(flag, FLAGS)}"
            )


def fill_vocabularies(
    schema: Schema, events: pd.DataFrame, train_rows: np.ndarray, min_count: int = 1
) -> tuple[Schema, dict[str, Tokens]]:
    """Builds the vocabulary of every table that keeps one in a file.

    A file that already lies beside a given schema is kept as it is, so that a model can be trained
    again on later data with the same rows.

    Args:
        schema: features; their vocabulary files and sizes are replaced.
        events: canonical log.
        train_rows: the rows that are counted.
        min_count: least number of train occurrences of a token.

    Returns:
        The schema with files `vocabularies/<table>.txt`, and the tokens by table.

    Raises:
        EventLogError: when a table is left without a single token.
    """
    tokens: dict[str, Tokens] = {}
    for table, owner in schema.tables.items():
        if not isinstance(owner.encoding, Vocabulary) or owner.encoding.file is None:
            continue
        tokens[table] = _existing(schema, table) or build_vocabulary(
            (convert(events[f.name].iloc[train_rows], f) for f in _users_of(schema, table)),
            min_count,
        )
        if not tokens[table]:
            raise EventLogError(
                f"Feature {owner.name!r} has no value that occurs {min_count} times or more in the "
                "train split. Remove the column, or lower the least count."
            )
    return _map_features(schema, lambda feature: _with_size(feature, tokens)), tokens


def _existing(schema: Schema, table: str) -> Tokens:
    encoding = schema.tables[table].encoding
    given = schema.directory is not None and isinstance(encoding, Vocabulary) and encoding.file
    if not given or not (schema.directory / given).is_file():  # type: ignore[operator]
        return ()
    return schema.vocabulary(table)  # type: ignore[return-value]


def _users_of(schema: Schema, table: str) -> list[Feature]:
    return [feature for feature in schema.features if feature.table == table]


def _with_size(feature: Feature, tokens: Mapping[str, Tokens]) -> Feature:
    if feature.table not in tokens:
        return feature
    file, size = vocabulary_file(feature.table), len(tokens[feature.table])
    return dataclasses.replace(feature, encoding=Vocabulary(feature.dtype, file=file, size=size))


def _map_features(schema: Schema, change: Callable[[Feature], Feature]) -> Schema:
    return dataclasses.replace(
        schema,
        context=tuple(change(feature) for feature in schema.context),
        candidate=tuple(change(feature) for feature in schema.candidate),
    )


def vocabulary_file(table: str) -> str:
    """Returns the file of a table's tokens, relative to the folder."""
    return f"{VOCABULARIES}/{table}.txt"


def write_vocabularies(directory: Path, tokens: Mapping[str, Tokens]) -> None:
    """Writes `vocabularies/<table>.txt`, one token a line."""
    (directory / VOCABULARIES).mkdir(parents=True, exist_ok=True)
    for table, values in tokens.items():
        text = "".join(f"{token}\n" for token in values)
        (directory / vocabulary_file(table)).write_text(text, encoding="utf-8", newline="\n")
