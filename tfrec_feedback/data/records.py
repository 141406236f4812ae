"""Requests as `tf.train.Example` records.

One record is one request. Its features are the tensors of `schema.inputs()` by name: context
features hold one value; candidate features N values in log order; histories n values, oldest
first, the most recent last. A multi-valued entry is padded to `max_values` values (0 or empty
text) and has its true count in `<name>_count`. Besides:

| feature | type | holds |
|---|---|---|
| `num_candidates`, `<history>_length` | int64 [1] | N, n |
| `label_<flag>` | int64 [N] | every feedback flag of the schema's tasks |
| `sample_weight` | float [N] | 1 / sampling rate |
| `truth_false_click` | int64 [N] | clicked without being satisfied; simulated logs, for analysis |
| `request_id`, `user_key` | bytes [1] | who asked, as text |
| `timestamp` | int64 [1] | milliseconds since 1970 |
| `<history>_timestamp` | int64 [n] | times of the history's events; for audits, not an input |
| `<history>_session` | int64 [n] | sessions of the events, counted back from the most recent |
| `<history>_sample_<feature>` | its type [k] | events drawn from all the user's earlier ones |
| `<history>_sample_length` | int64 [1] | k; 0 outside the train split |
| `<history>_sample_timestamp` | int64 [k] | times of the samples; for audits, not an input |

Sessions are there for the histories that have `num_sessions` in the schema.

Samples are there for the histories that have `num_samples` in the schema. They are read in training
alone (`schema.training_inputs()`), and look like a history but for their order, which is random.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from tfrec_feedback.data.columns import convert
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import RequestTable
from tfrec_feedback.data.history import EventSlices, HistorySlices
from tfrec_feedback.data.protobuf import (
    EncodedColumn,
    FeatureEncoder,
    encode_column,
    join_examples,
)
from tfrec_feedback.data.sessions import Sessions
from tfrec_feedback.schema import Feature, Schema

SAMPLE_WEIGHT = "sample_weight"
TRUTH = "truth_false_click"
REQUEST_ID = "request_id"
USER_KEY = "user_key"
TIMESTAMP = "timestamp"
_CHUNK = 2048
_PADDING: dict[str, object] = {"int64": 0, "float32": 0.0, "string": ""}


def label_key(flag: str) -> str:
    """Returns the name of a feedback flag's labels."""
    return f"label_{flag}"


def history_timestamp_key(history: str) -> str:
    """Returns the name of the times of the events of a history, or of its samples."""
    return f"{history}_timestamp"


class _Values:
    """The distinct values of one feature, encoded once, and which of them every row holds."""

    def __init__(self, column: pd.Series, feature: Feature):
        self.codes, distinct = pd.factorize(convert(column, feature))
        self.counts: EncodedColumn | None = None
        if feature.max_values == 1:
            self.values = encode_column(distinct.tolist(), feature.dtype)
            return
        width, padding = feature.max_values, [_PADDING[feature.dtype]] * feature.max_values
        padded = [(*entry, *padding)[:width] for entry in distinct]
        flat = list(itertools.chain.from_iterable(padded))
        self.values = encode_column(flat, feature.dtype).grouped(width)
        self.counts = encode_column([len(entry) for entry in distinct], "int64")

    def columns(self, name: str) -> Iterator[tuple[str, EncodedColumn]]:
        """Yields the tensors of the feature under a wire name."""
        yield name, self.values
        if self.counts is not None:
            yield f"{name}_count", self.counts


class _Slices:
    """One feature of the records whose values stand one after another for every request."""

    def __init__(self, name: str, column: EncodedColumn, start: np.ndarray, end: np.ndarray):
        self._encoder = FeatureEncoder(name, column)
        self._start, self._end = start, end

    def entries(self, requests: np.ndarray) -> list[bytes]:
        """Returns the map entries of some requests."""
        return self._encoder.entries(self._start[requests], self._end[requests])


class _Gathered:
    """One feature of the records whose values are brought together for a few requests at a time.

    Drawn events have no order that requests could share slices of, sessions are numbered from each
    request, and there are more of both than the log has rows.

    Args:
        name: the feature's key.
        column: its distinct values.
        codes: returns the rows of the column that some requests hold, one request after another.
        lengths: `[R]`, how many each holds.
    """

    def __init__(
        self,
        name: str,
        column: EncodedColumn,
        codes: Callable[[np.ndarray], np.ndarray],
        lengths: np.ndarray,
    ):
        self._name, self._column, self._codes, self._lengths = name, column, codes, lengths

    def entries(self, requests: np.ndarray) -> list[bytes]:
        """Returns the map entries of some requests."""
        ends = np.cumsum(self._lengths[requests])
        column = self._column.take(self._codes(requests))
        return FeatureEncoder(self._name, column).entries(ends - self._lengths[requests], ends)


class RecordEncoder:
    """Serialises requests.

    Values are encoded once when the object is built; `encode` only joins slices.

    Args:
        schema: what the records hold.
        events: canonical log.
        table: its requests.
        sequences: events of every history and sample sequence of the schema, by name.
        sessions: sessions of every history that has them in the schema, by name.
        false_clicks: 1 for every row of a simulated log that is a mistaken click.

    Raises:
        EventLogError: when a column does not fit its feature, or a feature is called like one of
            the records' own.
    """

    def __init__(
        self,
        schema: Schema,
        events: pd.DataFrame,
        table: RequestTable,
        sequences: Mapping[str, EventSlices],
        sessions: Mapping[str, Sessions] | None = None,
        false_clicks: np.ndarray | None = None,
    ):
        self._fields: dict[str, _Slices | _Gathered] = {}
        # What audits read stands first, so that they need not parse the rest of a record.
        self._add_request(events, table)
        times = encode_column(events["timestamp"].to_numpy(), "int64")
        every = np.arange(len(events))
        for name, slices in sequences.items():
            self._add_events(history_timestamp_key(name), times, every, slices)
        features = {f.name: _Values(events[f.name], f) for f in schema.features}
        for feature in schema.context:
            codes = features[feature.name].codes[table.first_rows]
            for name, column in features[feature.name].columns(feature.name):
                self._add(name, column, codes, codes + 1)
        self._add_candidates(schema, events, table, features)
        if false_clicks is not None:
            values = encode_column(false_clicks[table.rows], "int64")
            self._add(TRUTH, values, table.offsets[:-1], table.offsets[1:])
        for sequence in (*schema.histories, *schema.samples):
            slices = sequences[sequence.name]
            for name in sequence.features:
                for wire, column in features[name].columns(f"{sequence.name}_{name}"):
                    self._add_events(wire, column, features[name].codes, slices)
            if sequence.num_sessions:
                numbers = encode_column(np.arange(sequence.num_sessions + 1), "int64")
                codes_of = (sessions or {})[sequence.name].numbers
                gathered = _Gathered(sequence.session, numbers, codes_of, slices.length)
                self._add_field(sequence.session, gathered)
            self._add_number(sequence.length, slices.length)

    def _add_events(
        self, name: str, column: EncodedColumn, codes: np.ndarray, slices: EventSlices
    ) -> None:
        """Adds what events of the log hold: row i of the log holds row `codes[i]` of the column."""
        if isinstance(slices, HistorySlices):
            self._add(name, column.take(codes[slices.events]), slices.start, slices.end)
            return

        def codes_of(requests: np.ndarray) -> np.ndarray:
            return codes[slices.events[slices.positions(requests)]]

        self._add_field(name, _Gathered(name, column, codes_of, slices.length))

    def _add(self, name: str, column: EncodedColumn, start: np.ndarray, end: np.ndarray) -> None:
        self._add_field(name, _Slices(name, column, start, end))

    def _add_field(self, name: str, field: _Slices | _Gathered) -> None:
        if name in self._fields:
            raise EventLogError(
                f"The records already hold a feature {name!r}; rename the column of that name."
            )
        self._fields[name] = field

    def _add_number(self, name: str, numbers: np.ndarray) -> None:
        self._add(name, encode_column(np.arange(numbers.max() + 1), "int64"), numbers, numbers + 1)

    def _add_candidates(
        self,
        schema: Schema,
        events: pd.DataFrame,
        table: RequestTable,
        features: Mapping[str, _Values],
    ) -> None:
        start, end = table.offsets[:-1], table.offsets[1:]
        for feature in schema.candidate:
            codes = features[feature.name].codes[table.rows]
            for name, column in features[feature.name].columns(feature.name):
                self._add(name, column.take(codes), start, end)
        self._add_number("num_candidates", table.num_candidates)
        for flag in schema.feedbacks:
            labels = encode_column(events[flag].to_numpy()[table.rows], "int64")
            self._add(label_key(flag), labels, start, end)
        rates = events["sampling_rate"].to_numpy() if "sampling_rate" in events else 1.0
        weights = np.broadcast_to(1.0 / rates, (len(events),))[table.rows]
        self._add(SAMPLE_WEIGHT, encode_column(weights, "float32"), start, end)

    def _add_request(self, events: pd.DataFrame, table: RequestTable) -> None:
        every = np.arange(len(table))
        self._add(REQUEST_ID, encode_column(table.request_id, "string"), every, every + 1)
        self._add(TIMESTAMP, encode_column(table.timestamp, "int64"), every, every + 1)
        users = pd.unique(events["user_id"])  # in the order of the user codes
        keys = encode_column([str(user) for user in users], "string")
        self._add(USER_KEY, keys, table.user, table.user + 1)

    def encode(self, requests: np.ndarray) -> Iterator[bytes]:
        """Yields the records of the given requests, in their order."""
        for begin in range(0, len(requests), _CHUNK):
            chunk = requests[begin : begin + _CHUNK]
            yield from join_examples([f.entries(chunk) for f in self._fields.values()])
