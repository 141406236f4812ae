"""Event logs in files: CSV, TSV or Parquet in the columns of `tfrec_feedback.data.events`.

CSV: a feature column whose values are all whole numbers is an integer, all numbers a float,
anything else text; empty cells are missing. A column in which some value holds `|` is multi-valued
(`news|sports`). Parquet: the file's own types; multi-valued features are list columns. Missing
numbers become -1, missing text becomes empty: give a feature its own vocabulary where that is not
what you mean. Integers and text get a vocabulary, floats 16 quantile buckets; a schema file says
otherwise. A column with integers beyond 64 bits is text.

Ids are integers or text. Where they come as floats (pandas makes them so once some are missing),
12.0 is 12, and what is not whole or too large to be exact is refused. No other column of floats is
converted: a duration of 2.0 is a number, even where all durations are whole.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfrec_feedback.data.columns import (
    MISSING_NUMBER,
    feature_columns,
    infer_types,
    is_multi_valued,
)
from tfrec_feedback.data.events import (
    FILE,
    IDS,
    LINE,
    EventLogError,
    Malformed,
    Source,
    clean_events,
    whole_ids,
)
from tfrec_feedback.data.manifest import Report

_TEXT = (".csv", ".tsv")
_PARQUET = (".parquet",)
_BAD_LINE = re.compile(r"Skipping line (\d+): (.*)")


def read_events(
    path: str | Path, *, strict: bool = False, multi_valued: Iterable[str] | None = None
) -> Source:
    """Reads a canonical event log from a file, or from all files of a folder.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file, or a folder of files of one of these kinds.
        strict: stop at a malformed row instead of dropping it.
        multi_valued: the CSV columns that are multi-valued, instead of those that hold `|`.

    Raises:
        EventLogError: for missing or unknown columns, files of several kinds, unreadable files,
            ids that are not whole numbers nor text, and for malformed rows when `strict`.
    """
    files = find_files(Path(path))
    report = Report()
    if files[0].suffix in _PARQUET:
        frame = clean_events(_concat([_read_parquet(f, report) for f in files]), report, strict)
        events = _fill_missing(frame, report, strict)
    else:
        frame = clean_events(_concat([read_text(f, report, strict) for f in files]), report, strict)
        malformed = Malformed(frame)
        several = None if multi_valued is None else frozenset(multi_valued)
        typed = infer_types(frame, malformed, several)
        events = malformed.drop(report, strict).copy()
        for name, column in typed.items():
            events[name] = column.loc[events.index]
    return Source("events", drop_duplicates(events, report), report, files=tuple(files))


def find_files(path: Path) -> list[Path]:
    """Returns the log files at a path, sorted; all of one kind."""
    if not path.exists():
        raise EventLogError(f"No such file or folder: {path}. Pass the log with `--input`.")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [f for f in files if f.suffix in (*_TEXT, *_PARQUET)]
    if not files:
        raise EventLogError(f"{path} is (or holds) no .csv, .tsv or .parquet file.")
    if len({f.suffix in _PARQUET for f in files}) > 1:
        raise EventLogError(f"{path} holds text and Parquet files; keep one kind.")
    return files


def drop_duplicates(events: pd.DataFrame, report: Report) -> pd.DataFrame:
    """Drops exact repetitions of earlier rows, counts them, and gives the log a fresh index."""
    events = events.drop(columns=[FILE, LINE])
    repeated = events.duplicated()
    report.duplicates += int(repeated.sum())
    return events[~repeated].reset_index(drop=True)


def read_text(path: Path, report: Report, strict: bool = False) -> pd.DataFrame:
    """Reads a CSV or TSV file as text, with the file and line of every row.

    Args:
        path: the file; its first line is the header.
        report: rows, and lines with too many fields, are counted into it.
        strict: stop at such a line.
    """
    separator = "\t" if path.suffix == ".tsv" else ","
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype="str",
                keep_default_na=False,
                skip_blank_lines=False,
                on_bad_lines="warn",
                index_col=False,
            )
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
            raise EventLogError(
                f"{path} cannot be read as UTF-8 {path.suffix[1:].upper()}: {error}."
            ) from error
    skipped = [m for w in caught for m in _BAD_LINE.findall(str(w.message))]
    frame = frame.fillna("")
    _count_skipped(path, skipped, report, strict)
    report.rows += len(frame) + len(skipped)
    # pandas numbers the rows it kept; every skipped line before a row shifts it by one.
    lines = np.arange(2, len(frame) + len(skipped) + 2)
    frame[LINE] = lines[~np.isin(lines, [int(line) for line, _ in skipped])]
    frame[FILE] = path.name
    return frame


def _count_skipped(
    path: Path, skipped: list[tuple[str, str]], report: Report, strict: bool
) -> None:
    if not skipped:
        return
    examples = [f"{path.name}, line {line}: {what}." for line, what in skipped]
    if strict:
        raise EventLogError(f"{examples[0]} Without `--strict` such lines are dropped.")
    reason = "too many fields in the line"
    report.malformed[reason] = report.malformed.get(reason, 0) + len(skipped)
    report.examples.extend(examples[: 5 - len(report.examples)])


def _read_parquet(path: Path, report: Report) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise EventLogError(f"{path} cannot be read as Parquet: {error}.") from error
    frame = pd.DataFrame({n: _from_arrow(n, table.column(n)) for n in table.column_names})
    report.rows += len(frame)
    frame[LINE], frame[FILE] = np.arange(1, len(frame) + 1), path.name
    return frame


def _from_arrow(name: str, column: pa.ChunkedArray) -> pd.Series:
    """Returns a column with integers that stay integers when some are missing."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _from_arrow(name, column.cast(kind.value_type))
    if pa.types.is_uint64(kind):
        column = _signed(column, pa.int64(), pa.string())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if pa.types.is_uint64(kind.value_type):
            column = _signed(column, pa.list_(pa.int64()), pa.list_(pa.string()))
        values = column.to_pylist()
        series = pd.Series([None] * len(values), dtype=object)
        series[:] = [tuple(v for v in entry or () if v is not None) for entry in values]
        return series
    if name == "timestamp" and pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", tz=kind.tz), safe=False).cast(pa.int64())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    if pa.types.is_integer(column.type):
        return column.to_pandas(types_mapper={column.type: pd.Int64Dtype()}.get)
    if name in IDS and pa.types.is_floating(kind):
        return whole_ids(name, column.to_pandas())
    return column.to_pandas()


def _signed(column: pa.ChunkedArray, signed: pa.DataType, text: pa.DataType) -> pa.ChunkedArray:
    """Returns unsigned integers as signed ones, or as text where one does not fit."""
    try:
        return column.cast(signed)
    except pa.ArrowInvalid:
        return column.cast(text)


def _fill_missing(frame: pd.DataFrame, report: Report, strict: bool) -> pd.DataFrame:
    malformed = Malformed(frame)
    for name in feature_columns(frame):
        if frame[name].dtype.kind == "f":
            malformed.add(name, np.isinf(frame[name].to_numpy()), "a finite number")
    frame = malformed.drop(report, strict).copy()
    for name in feature_columns(frame):
        column = frame[name]
        if column.dtype == "Int64":
            frame[name] = column.fillna(MISSING_NUMBER).astype("int64")
        elif column.dtype.kind == "f":
            frame[name] = column.fillna(float(MISSING_NUMBER)).astype("float64")
        elif not is_multi_valued(column):
            frame[name] = column.fillna("").astype("str")
    return frame


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    first = frames[0]
    for frame in frames[1:]:
        if set(frame.columns) != set(first.columns):
            raise EventLogError(
                f"{frame[FILE].iloc[0]} has columns {list(frame.columns[:-2])}, "
                f"{first[FILE].iloc[0]} has {list(first.columns[:-2])}; they must be the same."
            )
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else first
