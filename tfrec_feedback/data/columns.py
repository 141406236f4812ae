"""Types of feature columns: guessed from text, and brought to what a schema's feature holds.

A feature column is int64, float64, text, or holds tuples of one of them (multi-valued). What is
missing is -1 (numbers), empty text, or an empty tuple.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from tfrec_feedback.data.events import (
    CANDIDATE_PREFIX,
    CONTEXT_PREFIXES,
    EventLogError,
    Malformed,
    is_empty,
)
from tfrec_feedback.schema import Feature

SEPARATOR = "|"
MISSING_NUMBER = -1
_INTEGER = r"[+-]?[0-9]{1,18}"
_NOT_FINITE = r"[+-]?(?:nan|inf|infinity)"


def is_multi_valued(column: pd.Series) -> bool:
    """Returns whether a column holds tuples."""
    return column.dtype == object and any(isinstance(v, tuple) for v in column.iloc[:1])


def feature_columns(frame: pd.DataFrame) -> list[str]:
    """Returns the names of a frame's feature columns."""
    return [c for c in frame.columns if c.startswith((*CONTEXT_PREFIXES, CANDIDATE_PREFIX))]


def infer_types(
    frame: pd.DataFrame, malformed: Malformed, multi_valued: frozenset[str] | None = None
) -> dict[str, pd.Series]:
    """Gives the text columns of features their types.

    A column whose values are all whole numbers becomes int64; all numbers, float64; anything
    else stays text. A column in which some value holds `|` is multi-valued.

    Args:
        frame: rows as text.
        malformed: told of numbers that are not finite.
        multi_valued: the columns that are multi-valued, instead of looking for `|`.

    Returns:
        The typed columns by name.
    """
    typed: dict[str, pd.Series] = {}
    for name in feature_columns(frame):
        text = frame[name]
        if name in ("user_id", "item_id"):
            several = False
        elif multi_valued is None:
            several = bool(text.str.contains(SEPARATOR, regex=False).any())
        else:
            several = name in multi_valued
        typed[name] = split_values(text) if several else _infer(name, text, malformed)
    return typed


def _infer(name: str, text: pd.Series, malformed: Malformed) -> pd.Series:
    empty = is_empty(text)
    given = text[~empty]
    if given.str.fullmatch(_INTEGER).all() and len(given):
        return text.mask(empty, str(MISSING_NUMBER)).astype("int64")
    not_finite = given.str.fullmatch(_NOT_FINITE, case=False)
    numbers = pd.to_numeric(given[~not_finite], errors="coerce").astype("float64")
    if not len(numbers) or numbers.isna().any():
        return text
    infinite = not_finite.copy()
    infinite[numbers.index] = np.isinf(numbers)  # 1e999
    malformed.add(name, infinite.reindex(text.index, fill_value=False), "a finite number")
    return numbers.reindex(text.index, fill_value=float(MISSING_NUMBER))


def split_values(text: pd.Series, separator: str = SEPARATOR) -> pd.Series:
    """Splits text into tuples of integers, or of texts where some value is not a whole number."""
    codes, distinct = pd.factorize(text)
    parts = [tuple(p for p in str(t).split(separator) if p) for t in distinct]
    values = pd.Series(list(itertools.chain.from_iterable(parts)), dtype="str")
    if len(values) and values.str.fullmatch(_INTEGER).all():
        parts = [tuple(int(p) for p in part) for part in parts]  # type: ignore[misc]
    return tuples(parts, codes, text.index)


def tuples(distinct: list[tuple], codes: np.ndarray, index: pd.Index | None = None) -> pd.Series:
    """Returns the column of tuples `distinct[code]`."""
    array = np.empty(len(distinct) + 1, object)
    array[: len(distinct)] = distinct
    array[-1] = ()  # code -1
    return pd.Series(array[codes], index=index, dtype=object)


def convert(column: pd.Series, feature: Feature) -> pd.Series:
    """Returns a column as the values of a feature: of its dtype, tuples where it is multi-valued.

    Raises:
        EventLogError: when the column's values do not fit the feature.
    """
    several = is_multi_valued(column)
    if feature.max_values == 1:
        if several:
            raise EventLogError(
                f"Column {feature.name!r} is multi-valued, but the schema's feature has "
                "max_values 1. Give the feature the number of values to keep."
            )
        return _cast(column, feature)
    codes, distinct = pd.factorize(column)
    parts = distinct.tolist() if several else [() if v == "" else (v,) for v in distinct.tolist()]
    parts = [part[: feature.max_values] for part in parts]
    flat = pd.Series(list(itertools.chain.from_iterable(parts)))
    values = iter(_cast(flat, feature).tolist() if len(flat) else ())
    return tuples([tuple(itertools.islice(values, len(p))) for p in parts], codes, column.index)


def _cast(column: pd.Series, feature: Feature) -> pd.Series:
    if feature.dtype == "string":
        return column.astype("str")
    try:
        cast = pd.to_numeric(column)
    except (ValueError, TypeError) as error:
        raise EventLogError(
            f"Column {feature.name!r} should hold {feature.dtype} values for its "
            f"{feature.encoding.kind} encoding: {error}."
        ) from error
    with np.errstate(over="ignore"):
        finite = np.isfinite(cast.to_numpy("float32")).all()
    if not finite:
        raise EventLogError(
            f"Column {feature.name!r} holds numbers that are not finite (or beyond float32)."
        )
    if feature.dtype == "int64" and (cast != np.floor(cast)).any():
        wrong = cast[cast != np.floor(cast)].iloc[0]
        raise EventLogError(f"Column {feature.name!r} should hold whole numbers, got {wrong}.")
    return cast.astype("int64" if feature.dtype == "int64" else "float32")
