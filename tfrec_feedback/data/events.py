"""The canonical event log: one row an exposure (an item shown to a user).

| column | type | meaning |
|---|---|---|
| `user_id`, `item_id` | integer or text | who was shown what; both are features too |
| `timestamp` | integer | milliseconds since 1970 |
| `click`, `like`, `dislike` | 0 or 1 | what the user did with it |
| `request_id` (optional) | text or integer | rows of one user with one id are one request; default: rows of one user with one timestamp |
| `sampling_rate` (optional) | in (0, 1] | share of such events the log kept; the sample weight is 1/rate |
| `split` (optional) | `train`, `validation`, `test` | split of the row's request; default: by time |
| `user_*`, `context_*` | any | features of the request (taken from its first row) |
| `item_*` | any | features of the candidate |

A source adapter (`tfrec_feedback.data.sources`) turns a raw log into a `Source`: such a frame and
what else is known about its columns.
"""  # noqa: E501 - a table row cannot be wrapped

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec_feedback.data.manifest import SPLITS, OptionValue, Report
from tfrec_feedback.schema import Encoding, suggest

FLAGS = ("click", "like", "dislike")
IDS = ("user_id", "item_id", "request_id")
REQUIRED = ("user_id", "item_id", "timestamp", *FLAGS)
OPTIONAL = ("request_id", "sampling_rate", "split")
CONTEXT_PREFIXES = ("user_", "context_")
CANDIDATE_PREFIX = "item_"
FILE, LINE = "_file", "_line"
"""Columns that say where a row was read; they are dropped when the log has been checked."""

_MAX_EXAMPLES = 5


class EventLogError(ValueError):
    """A log is not usable as it is; the message names the file, the line and the column."""


@dataclasses.dataclass
class Source:
    """A raw log in canonical form.

    Attributes:
        name: name of the adapter.
        events: the canonical log, in log order, with a fresh index. Multi-valued features hold
            tuples.
        report: what reading it found.
        files: what was read, for the fingerprint.
        settings: adapter options that shape the log, for the fingerprint.
        encodings: encodings of feature columns that should not be inferred.
        history_features: what a history event repeats of its item; default: `item_id` and the
            first three other `item_*` columns that are not floats.
        post_exposure: columns of the raw log that are known only after the exposure.
        truth: for simulated logs, what is true of each row of `events`.

    Raises:
        EventLogError: for missing or unknown columns, and for ids that are floats.
    """

    name: str
    events: pd.DataFrame
    report: Report
    files: tuple[Path, ...] = ()
    settings: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)
    encodings: Mapping[str, Encoding] = dataclasses.field(default_factory=dict)
    history_features: tuple[str, ...] = ()
    post_exposure: tuple[str, ...] = ()
    truth: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        check_columns(self.name, self.events.columns)
        for name in IDS:
            if name in self.events and self.events[name].dtype.kind == "f":
                raise EventLogError(
                    f"{self.name}: column {name!r} should hold integers or text, got floats. Bring "
                    "them to integers with `tfrec_feedback.data.events.whole_ids`."
                )
        if not self.history_features:
            others = [c for c in self.candidate_columns if c != "item_id"]
            others = [c for c in others if self.events[c].dtype.kind != "f"]
            self.history_features = ("item_id", *others[:3])

    @property
    def false_clicks(self) -> np.ndarray | None:
        """Which rows are mistaken clicks, 0 or 1, where the truth says so in `false_click`."""
        if self.truth is None or "false_click" not in self.truth:
            return None
        return self.truth["false_click"].to_numpy(np.int64)

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Columns of the user and of the moment, `user_id` first."""
        names = [c for c in self.events.columns if c.startswith(CONTEXT_PREFIXES)]
        return tuple(sorted(names, key=lambda c: c != "user_id"))

    @property
    def candidate_columns(self) -> tuple[str, ...]:
        """Columns of the shown item, `item_id` first."""
        names = [c for c in self.events.columns if c.startswith(CANDIDATE_PREFIX)]
        return tuple(sorted(names, key=lambda c: c != "item_id"))


def check_columns(where: str, columns: Iterable[str]) -> None:
    """Raises `EventLogError` when canonical columns are missing, or others are not known."""
    names = [str(c) for c in columns if c not in (FILE, LINE)]
    missing = [c for c in REQUIRED if c not in names]
    if missing:
        near = "".join(suggest(c, [n for n in names if n not in REQUIRED]) for c in missing[:1])
        raise EventLogError(
            f"{where}: missing columns {missing}; the file has {names}.{near} An event log needs "
            f"{list(REQUIRED)}."
        )
    prefixes = (*CONTEXT_PREFIXES, CANDIDATE_PREFIX)
    known = (*REQUIRED, *OPTIONAL)
    for name in names:
        if name not in known and not name.startswith(prefixes):
            close = suggest(name, known)
            raise EventLogError(
                f"{where}: unknown column {name!r}.{close} Expected {list(known)}, or a feature "
                f"whose name starts with one of {list(prefixes)}. Rename or remove it."
            )
    repeated = {n for n in names if names.count(n) > 1}
    if repeated:
        raise EventLogError(f"{where}: columns {sorted(repeated)} appear more than once.")


class Malformed:
    """Collects the malformed rows of a frame, each with its first reason.

    Args:
        frame: rows with `FILE` and `LINE` columns.
    """

    def __init__(self, frame: pd.DataFrame):
        self._frame = frame
        self._bad = np.zeros(len(frame), bool)
        self._counts: dict[str, int] = {}
        self._examples: list[tuple[int, str]] = []

    def add(self, column: str, bad: np.ndarray | pd.Series, expected: str) -> None:
        """Marks rows whose value in `column` is not what was `expected`."""
        new = np.asarray(bad, bool) & ~self._bad
        rows = np.flatnonzero(new)
        if len(rows) == 0:
            return
        self._bad |= new
        self._counts[f"{column}: expected {expected}"] = len(rows)
        for row in rows[:_MAX_EXAMPLES].tolist():
            where = f"{self._frame[FILE].iloc[row]}, line {self._frame[LINE].iloc[row]}"
            value = self._frame[column].iloc[row]
            value = value.item() if isinstance(value, np.generic) else value
            got = "nothing" if _is_missing(value) else repr(value)
            text = f"{where}, column {column!r}: expected {expected}, got {got}."
            self._examples.append((row, text))

    def drop(self, report: Report, strict: bool) -> pd.DataFrame:
        """Returns the frame without its malformed rows, counted into `report`.

        Raises:
            EventLogError: with the first malformed row, when `strict`.
        """
        examples = [text for _, text in sorted(self._examples)]
        if examples and strict:
            raise EventLogError(
                f"{examples[0]} {int(self._bad.sum())} rows are malformed; without `--strict` they "
                "are counted and dropped."
            )
        for reason, count in self._counts.items():
            report.malformed[reason] = report.malformed.get(reason, 0) + count
        report.examples.extend(examples[: _MAX_EXAMPLES - len(report.examples)])
        return self._frame[~self._bad] if self._bad.any() else self._frame


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value == "" or value != value  # noqa: PLR0124


def is_empty(column: pd.Series) -> pd.Series:
    """Returns where a column holds nothing: null, or empty text."""
    empty = column.isna()
    return empty if column.dtype.kind in "iufb" else empty | (column == "").fillna(False)


def whole_ids(name: str, ids: pd.Series) -> pd.Series:
    """Returns ids that came as floats (12.0) as the integers they were; missing ones stay missing.

    Args:
        name: of the column, for the error.
        ids: a column of numpy floats.

    Raises:
        EventLogError: for an id that is not whole, or so large that floats round it.

    Example:
        >>> whole_ids("user_id", pd.Series([12.0, 7.0])).tolist()
        [12, 7]
    """
    exact = 2 ** (np.finfo(ids.to_numpy().dtype).nmant + 1)
    wrong = ids.notna() & ((ids != np.floor(ids)) | (ids.abs() >= exact))
    if wrong.any():
        raise EventLogError(
            f"Column {name!r} should hold integers or text, got the number {ids[wrong].iloc[0]}. "
            f"Ids that come as floats must be whole and below {exact}: larger ones are rounded, so "
            "that several become one. Write the column as integers, or as text (in pandas, dtype "
            "'Int64' or 'str' from the first reading on)."
        )
    return ids.astype("Int64")


def clean_events(frame: pd.DataFrame, report: Report, strict: bool = False) -> pd.DataFrame:
    """Checks the canonical columns and gives them their types; features are left as they are.

    Args:
        frame: the log as it was read, text or typed, with `FILE` and `LINE` columns.
        report: malformed rows are counted into it.
        strict: stop at a malformed row instead of dropping it.

    Returns:
        The well-formed rows: flags and `timestamp` int64, `sampling_rate` float64.

    Raises:
        EventLogError: for missing or unknown columns, and for malformed rows when `strict`.
    """
    check_columns(str(frame[FILE].iloc[0]) if len(frame) else "the log", frame.columns)
    malformed = Malformed(frame)
    for name in ("user_id", "item_id", *(["request_id"] if "request_id" in frame else [])):
        malformed.add(name, is_empty(frame[name]), "a value")
    times = _number(frame["timestamp"])
    whole = np.isfinite(times) & (times >= 0) & (times == np.floor(times)) & (times < 2.0**62)
    malformed.add("timestamp", ~whole, "whole milliseconds since 1970")
    for flag in FLAGS:
        malformed.add(flag, ~_number(frame[flag]).isin([0, 1]), "0 or 1")
    if "sampling_rate" in frame:
        rates = _number(frame["sampling_rate"])
        malformed.add("sampling_rate", ~((rates > 0) & (rates <= 1)), "a number in (0, 1]")
    if "split" in frame:
        malformed.add("split", ~frame["split"].isin(SPLITS), f"one of {list(SPLITS)}")
    clean = malformed.drop(report, strict).copy()
    for name in ("timestamp", *FLAGS):
        clean[name] = pd.to_numeric(clean[name]).astype("int64")
    if "sampling_rate" in clean:
        clean["sampling_rate"] = pd.to_numeric(clean["sampling_rate"]).astype("float64")
    return clean


def _number(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce").astype("float64")
