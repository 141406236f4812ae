"""Requests as people write them, turned into the tensors a model reads.

A request is a mapping with three parts:

    {"context":    {"user_id": 7, "hour": 21},
     "histories":  {"click": {"item_id": [10, 12], "tag": [["a"], ["a", "b"]]}},
     "candidates": {"item_id": [11, 13], "tag": [["b"], []]}}

Histories are oldest first and may be left out (no such feedback yet). Candidates and histories may
also be lists of rows, `[{"item_id": 11, "tag": ["b"]}, ...]`.

A history whose sessions a model reads has one more column, `session`: for every event the number of
its session, counted back from that of the most recent event: `"session": [2, 0, 0]`. Models without
sessions ignore it.

Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema, suggest

_DTYPES: dict[str, Any] = {"int64": np.int64, "float32": np.float32, "string": np.object_}
_PADDING: dict[str, Any] = {"int64": 0, "float32": 0.0, "string": b""}
SESSION = "session"
"""Column of a history that holds session numbers."""
_SESSION = Feature(SESSION, Identity(1))  # says that the numbers are single integers


class RequestError(ValueError):
    """A request does not fit its schema; the message names the part and the feature."""


def encode_requests(schema: Schema, requests: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Encodes requests of one schema as one padded batch.

    Histories longer than the schema's `max_length` keep their most recent events.

    Args:
        schema: what the requests hold.
        requests: R requests, as in the module docstring.

    Returns:
        The tensors of `schema.inputs()`: `int64`, `float32` and (bytes) `object` arrays, with N
        and T the largest of the batch and at least 1.

    Raises:
        RequestError: names the request, the part and the feature that is missing, unknown, of
            unequal length, of the wrong type, or not finite; or a history whose session numbers
            are negative or grow towards the present.
    """
    parts = [_Parts(schema, request, index) for index, request in enumerate(requests)]
    columns: list[Sequence[Any]]
    batch: dict[str, np.ndarray] = {}
    for feature in schema.context:
        columns = [[part.context[feature.name]] for part in parts]
        batch.update(_encode(feature, feature.name, columns, "context", squeeze=True))
    for feature in schema.candidate:
        columns = [part.candidates[feature.name] for part in parts]
        batch.update(_encode(feature, feature.name, columns, "candidates"))
    batch["num_candidates"] = np.array([part.num_candidates for part in parts], np.int64)
    of_candidates = {feature.name: feature for feature in schema.candidate}
    for sequence in schema.histories:
        for name in sequence.features:
            columns = [p.histories[sequence.name][name][-sequence.max_length :] for p in parts]
            where = f"histories.{sequence.name}"
            wire = f"{sequence.name}_{name}"
            batch.update(_encode(of_candidates[name], wire, columns, where))
        if sequence.num_sessions:
            columns = [p.histories[sequence.name][SESSION][-sequence.max_length :] for p in parts]
            where = f"histories.{sequence.name}"
            batch.update(_encode(_SESSION, sequence.session, columns, where))
            _check_sessions(batch[sequence.session], columns, sequence)
        lengths = [min(p.lengths[sequence.name], sequence.max_length) for p in parts]
        batch[sequence.length] = np.array(lengths, np.int64)
    return batch


class _Parts:
    """The columns of one request, checked against the schema."""

    def __init__(self, schema: Schema, request: Mapping[str, Any], index: int):
        self._where = f"request {index}"
        if not isinstance(request, Mapping):
            raise RequestError(
                f"{self._where}: expected a mapping with 'context', 'histories' and 'candidates', "
                f"got {type(request).__name__}."
            )
        allowed = ("context", "histories", "candidates")
        for key in request:
            if key not in allowed:
                raise RequestError(
                    f"{self._where}: unknown part {key!r}; expected {list(allowed)}."
                    f"{suggest(str(key), allowed)}"
                )
        if "candidates" not in request:
            raise RequestError(f"{self._where}: no 'candidates': nothing to score.")
        self.context = request.get("context") or {}
        self._check_names("context", self.context, [f.name for f in schema.context])
        candidates = [f.name for f in schema.candidate]
        self.candidates = self._columns("candidates", request["candidates"], candidates)
        self.num_candidates = self._length("candidates", self.candidates)
        given = request.get("histories") or {}
        names = [h.name for h in schema.histories]
        self._check_known("histories", given, names)
        self.histories: dict[str, Mapping[str, Sequence[Any]]] = {}
        self.lengths: dict[str, int] = {}
        for sequence in schema.histories:
            part = f"histories.{sequence.name}"
            columns = list(sequence.features)
            columns += [SESSION] if sequence.num_sessions else []
            value = given.get(sequence.name) or {name: () for name in columns}
            self.histories[sequence.name] = self._columns(part, value, columns, (SESSION,))
            self.lengths[sequence.name] = self._length(part, self.histories[sequence.name])

    def _check_known(
        self, part: str, given: Any, names: list[str], ignored: tuple[str, ...] = ()
    ) -> None:
        if not isinstance(given, Mapping):
            raise RequestError(
                f"{self._where}: {part} must be a mapping, got {type(given).__name__}."
            )
        for name in given:
            if name not in names and name not in ignored:
                raise RequestError(
                    f"{self._where}: {part} has unknown {name!r}; expected {names}."
                    f"{suggest(str(name), names)}"
                )

    def _check_names(
        self, part: str, given: Any, names: list[str], ignored: tuple[str, ...] = ()
    ) -> None:
        self._check_known(part, given, names, ignored)
        missing = [name for name in names if name not in given]
        if missing:
            raise RequestError(f"{self._where}: {part} is missing {missing}.")

    def _columns(
        self, part: str, value: Any, names: list[str], ignored: tuple[str, ...] = ()
    ) -> Mapping[str, Sequence[Any]]:
        if isinstance(value, list | tuple):
            for row, item in enumerate(value):
                self._check_names(f"{part}[{row}]", item, names, ignored)
            return {name: [item[name] for item in value] for name in names}
        self._check_names(part, value, names, ignored)
        return value

    def _length(self, part: str, columns: Mapping[str, Sequence[Any]]) -> int:
        for name, column in columns.items():
            if not _is_list(column):
                raise RequestError(
                    f"{self._where}: {part}.{name} must be a list, got {type(column).__name__}."
                )
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise RequestError(
                f"{self._where}: the columns of {part} differ in length: {lengths}. Every column "
                "needs one entry an item."
            )
        return next(iter(lengths.values()), 0)


def _encode(
    feature: Feature,
    wire_name: str,
    columns: Sequence[Sequence[Any]],
    where: str,
    squeeze: bool = False,
) -> dict[str, np.ndarray]:
    """Pads one feature's columns to `[R, width]` (or `[R, width, L]` and its count)."""
    width = max(1, *(len(column) for column in columns)) if columns else 1
    shape: tuple[int, ...] = (len(columns), width)
    if feature.max_values > 1:
        values = np.full(
            (*shape, feature.max_values), _PADDING[feature.dtype], _DTYPES[feature.dtype]
        )
        counts = np.zeros(shape, np.int64)
        for r, column in enumerate(columns):
            for n, entry in enumerate(column):
                if not _is_list(entry):
                    raise RequestError(
                        f"request {r}: {where}.{wire_name} is multi-valued: entry {n} must be a "
                        f"list of values, got {entry!r}."
                    )
                kept = list(entry)[: feature.max_values]
                values[r, n, : len(kept)] = _values(
                    feature, kept, f"request {r}: {where}.{wire_name}"
                )
                counts[r, n] = len(kept)
        batch = {wire_name: values, f"{wire_name}_count": counts}
    elif len(columns) == 1 and len(columns[0]):  # most calls: one request, nothing to pad
        batch = {wire_name: _values(feature, columns[0], f"request 0: {where}.{wire_name}")[None]}
    else:
        values = np.full(shape, _PADDING[feature.dtype], _DTYPES[feature.dtype])
        for r, column in enumerate(columns):
            values[r, : len(column)] = _values(feature, column, f"request {r}: {where}.{wire_name}")
        batch = {wire_name: values}
    return {name: array[:, 0] for name, array in batch.items()} if squeeze else batch


def _check_sessions(
    numbers: np.ndarray, columns: Sequence[Sequence[Any]], sequence: FeedbackSequence
) -> None:
    """Refuses sessions numbered from the oldest, the mistake that would go unnoticed."""
    for r, column in enumerate(columns):
        row = numbers[r, : len(column)]
        if (row < 0).any() or (np.diff(row) > 0).any() or row[-1:].any():
            raise RequestError(
                f"request {r}: histories.{sequence.name}.{SESSION}: expected the session of every "
                "event counted back from the most recent one, so 0 at the last event, never below "
                f"0 and never growing from the oldest event to the latest; got {row.tolist()}."
            )


def _values(feature: Feature, values: Any, where: str) -> np.ndarray:
    """Returns values as an array of the feature's type, refusing what does not fit."""
    if len(values) == 0:
        return np.zeros(0, _DTYPES[feature.dtype])
    if feature.dtype == "string":
        return _strings(values, where)
    types = set() if isinstance(values, np.ndarray) else set(map(type, values))
    if types == {int} and feature.dtype == "int64":  # most calls, and every other check is theirs
        try:
            return np.array(values, np.int64)
        except OverflowError:
            pass
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal length among the values
        array = np.empty((0, 0))
    # numpy turns a lone True among integers into 1.
    has_bool = bool in types
    if array.ndim != 1 or array.dtype.kind not in "iuf" or has_bool:
        wrong = _first_wrong(values, feature.dtype)
        raise RequestError(f"{where}: expected {feature.dtype} values, got {wrong!r}.")
    if feature.dtype == "float32":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise RequestError(f"{where}: expected finite numbers, got NaN or infinity.")
        return array
    if not _is_integral(array).all():
        wrong = _first_wrong(values, feature.dtype)
        raise RequestError(f"{where}: expected integers of 64 bits, got {wrong!r}.")
    return array.astype(np.int64)


def _is_list(value: Any) -> bool:
    """Returns whether a value is a list, an array or the like; text is a single value."""
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping | Set)


def _strings(values: Any, where: str) -> np.ndarray:
    encoded = np.empty(len(values), np.object_)
    for i, value in enumerate(values):
        if not isinstance(value, str | bytes):
            raise RequestError(f"{where}: expected text, got {value!r} ({type(value).__name__}).")
        try:
            encoded[i] = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        except UnicodeEncodeError as error:  # half a surrogate pair, as JSON may hold
            raise RequestError(f"{where}: expected Unicode text, got {value!r}.") from error
    return encoded


def _is_integral(array: np.ndarray) -> np.ndarray:
    """Returns where numbers are whole and fit 64 bits; a cast would wrap the others silently."""
    if array.dtype.kind == "i":
        return np.ones(array.shape, np.bool_)
    if array.dtype.kind == "u":
        return array <= np.iinfo(np.int64).max
    return (np.abs(array) < 2.0**63) & (array == np.floor(array))


def _first_wrong(values: Any, dtype: str) -> Any:
    """Returns the first value that is no number (or, for int64, no integer of 64 bits)."""
    for value in values:
        number = isinstance(value, int | float | np.integer | np.floating)
        if not number or isinstance(value, bool):
            return value
        if dtype == "int64" and not _is_integral(np.array(float(value))):
            return value
    return values


__all__ = ["SESSION", "RequestError", "encode_requests"]
