"""Types of feature columns: guessed from text, and brought to what a schema's feature holds.

A feature column is int64, float64, text, or holds tuples of one of them (multi-valued). What is
missing is -1 (numbers), empty text, or an empty tuple. Ids are int64 or text, never floats.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from tfrec_feedback.data.events import (
    CANDIDATE_PREFIX,
    CONTEXT_PREFIXES,
    IDS,
    EventLogError,
    Malformed,
    is_empty,
    whole_ids,
)
from tfrec_feedback.schema import Feature

SEPARATOR = "|"
MISSING_NUMBER = -1
_INTEGER = r"[+-]?[0-9]+"
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
    """Gives the text columns of features, and of ids, their types.

    A column whose values are all whole numbers becomes int64 where all fit, and stays text where
    one is larger; all numbers, float64; anything else stays text. A column in which some value
    holds `|` is multi-valued.

    Ids are never floats: in a column of numbers, 12.0 is 12. Other columns with such a value are
    float64, even where all are whole. `request_id` stays text.

    Args:
        frame: rows as text.
        malformed: told of numbers that are not finite.
        multi_valued: the columns that are multi-valued, instead of looking for `|`.

    Returns:
        The typed columns by name.

    Raises:
        EventLogError: for ids that are numbers, but not whole, or rounded.
    """
    typed = {name: _exact_ids(name, frame[name], malformed) for name in IDS if name in frame}
    for name in feature_columns(frame):
        text = typed.get(name, frame[name])
        if name in IDS:
            several = False
        elif multi_valued is None:
            several = bool(text.str.contains(SEPARATOR, regex=False).any())
        else:
            several = name in multi_valued
        typed[name] = split_values(text) if several else _infer(name, text, malformed)
    return typed


def _exact_ids(name: str, text: pd.Series, malformed: Malformed) -> pd.Series:
    """Returns ids as text; those that were written as floats, as the integers they were."""
    floats = ~text.str.fullmatch(_INTEGER)
    numbers = _numbers(name, text, malformed) if floats.any() else None
    if numbers is None:
        return text
    return text.mask(floats, whole_ids(name, numbers[floats]).astype("str"))


def _infer(name: str, text: pd.Series, malformed: Malformed) -> pd.Series:
    empty = is_empty(text)
    if len(text[~empty]) and text[~empty].str.fullmatch(_INTEGER).all():
        integers = _int64(text.mask(empty, str(MISSING_NUMBER)))
        return text if integers is None else integers
    numbers = _numbers(name, text, malformed)
    return text if numbers is None else numbers


def _int64(text: pd.Series) -> pd.Series | None:
    """Returns whole numbers as int64, or None where one does not fit."""
    try:
        return text.astype("int64")
    except (OverflowError, ValueError):  # ValueError: more digits than Python converts.
        return None


def _numbers(name: str, text: pd.Series, malformed: Malformed) -> pd.Series | None:
    """Returns numbers as float64, or None where some value is none."""
    given = text[~is_empty(text)]
    not_finite = given.str.fullmatch(_NOT_FINITE, case=False)
    numbers = pd.to_numeric(given[~not_finite], errors="coerce").astype("float64")
    if not len(numbers) or numbers.isna().any():
        return None
    infinite = not_finite.copy()
    infinite[numbers.index] = np.isinf(numbers)  # 1e999
    malformed.add(name, infinite.reindex(text.index, fill_value=False), "a finite number")
    return numbers.reindex(text.index, fill_value=float(MISSING_NUMBER))


def split_values(text: pd.Series, separator: str = SEPARATOR) -> pd.Series:
    """Splits text into tuples of int64, or of texts where some value is no such whole number."""
    codes, distinct = pd.factorize(text)
    parts = [tuple(p for p in str(t).split(separator) if p) for t in distinct]
    values = pd.Series(list(itertools.chain.from_iterable(parts)), dtype="str")
    whole = len(values) and values.str.fullmatch(_INTEGER).all()
    if whole and _int64(values) is not None:
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
    if feature.dtype == "float32":
        return cast.astype("float32")
    wrong = ~_are_exact(cast)
    if wrong.any():
        raise EventLogError(
            f"Column {feature.name!r} should hold 64-bit whole numbers, got {cast[wrong].iloc[0]}. "
            f"Give the feature another encoding than {feature.encoding.kind} of int64."
        )
    return cast.astype("int64")


def _are_exact(numbers: pd.Series) -> pd.Series:
    """Returns which numbers become int64 without loss; floats from 2**53 on are rounded ones."""
    if numbers.dtype.kind == "i":
        return pd.Series(True, numbers.index)
    if numbers.dtype.kind == "f":
        return (numbers == np.floor(numbers)) & (numbers.abs() < 2**53)
    bounds = np.iinfo(np.int64)  # Larger integers came as unsigned ones, as objects or as text.
    return numbers.map(int).between(bounds.min, bounds.max)
