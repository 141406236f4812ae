"""Ways to send golden requests, and how far the answers are from what is expected.

A road runs a signature: a SavedModel, a session, a server. Every road is taken through every
signature, with requests padded, bucketed and cut as servers and clients do it. `top_k` is left out:
what it answers is no score of a request's candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfrec_feedback.golden import Request, batch, from_record, rows
from tfrec_feedback.schema import Schema

_TOGETHER = 4  # requests a message
_CHUNK = 64  # candidates a message, where requests are cut

Scores = dict[str, np.ndarray]
Call = Callable[[str, Mapping[str, np.ndarray]], Scores]
"""Runs a signature on arrays, by whatever road."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference of one road and one way to send requests.

    Attributes:
        road: e.g. `gRPC`.
        way: signature, and what was done to the requests.
        largest: absolute difference from Keras by task; infinite where scores are missing or NaN.
    """

    road: str
    way: str
    largest: Mapping[str, float]

    @property
    def worst(self) -> float:
        """Largest difference over the tasks."""
        return max(self.largest.values())


def compare(
    road: str, way: str, scores: Sequence[Scores], reference: Sequence[Scores]
) -> Difference:
    """Compares scores of the same requests; every task of the reference is expected."""
    largest = dict.fromkeys(reference[0], 0.0)
    for found, wanted in zip(scores, reference, strict=True):
        for task, values in wanted.items():
            got = found.get(task, np.zeros(0))
            fits = got.shape == values.shape and not np.isnan(got - values).any()
            gap = float(np.max(np.abs(got - values), initial=0.0)) if fits else float("inf")
            largest[task] = max(largest[task], gap)
    return Difference(road, way, largest)


class Golden:
    """Golden requests, and every way to send them.

    Args:
        schema: what they hold.
        records: their records.
        reference: scores `[N]` by task of each, from Keras.
    """

    def __init__(self, schema: Schema, records: Sequence[bytes], reference: Sequence[Scores]):
        self._schema, self._records, self._reference = schema, records, reference
        self._requests = [from_record(schema, record) for record in records]
        starts = range(0, len(records), _TOGETHER)
        self._groups = [slice(start, start + _TOGETHER) for start in starts]

    def differences(self, road: str, call: Call) -> list[Difference]:
        """Sends all requests in all ways.

        Args:
            road: what the answers are compared as.
            call: takes it.
        """
        ways = {
            "serving_default": self._ranked(call, "serving_default"),
            "rank": self._ranked(call, "rank"),
            "rank, padded with the first element": self._ranked(call, "rank", 3, True),
            "rank, bucketed": [self._bucketed(call, request) for request in self._requests],
            "rank, in chunks": [self._chunked(call, request) for request in self._requests],
            "predict_rows": [self._rows(call, request) for request in self._requests],
            "rank_examples": self._examples(call),
        }
        found = [compare(road, way, scores, self._reference) for way, scores in ways.items()]
        first = [{task: x[:1] for task, x in scores.items()} for scores in self._reference]
        found.append(compare(road, "classify", self._classified(call), first))
        task = "ctr" if "ctr" in first[0] else next(iter(first[0]))
        clicks = [{task: scores[task]} for scores in first]
        return [*found, compare(road, "regress", self._regressed(call, task), clicks)]

    def _ranked(
        self, call: Call, signature: str, extra: int = 0, first: bool = False
    ) -> list[Scores]:
        scores: list[Scores] = []
        for group in self._groups:
            part = batch(self._schema, self._requests[group], 1, extra, first)
            scores += _split(call(signature, part), part["num_candidates"])
        return scores

    def _bucketed(self, call: Call, request: Request) -> Scores:
        """Pads N to a power of two, as clients do that keep shapes few."""
        count = int(request["num_candidates"])
        part = batch(self._schema, [request])
        for spec in self._schema.inputs():
            if "N" in spec.axes:
                more = [(0, 0)] * part[spec.name].ndim
                more[1] = (0, (1 << (count - 1).bit_length()) - count)
                fill = b"" if spec.dtype == "string" else 0
                part[spec.name] = np.pad(part[spec.name], more, constant_values=fill)
        return _split(call("rank", part), [count])[0]

    def _chunked(self, call: Call, request: Request) -> Scores:
        """Sends the candidates a few at a time, each time with the user's part."""
        whole, pieces = batch(self._schema, [request]), []
        for start in range(0, int(request["num_candidates"]), _CHUNK):
            part = {
                spec.name: whole[spec.name][:, start : start + _CHUNK]
                if "N" in spec.axes
                else whole[spec.name]
                for spec in self._schema.inputs()
            }
            left = int(request["num_candidates"]) - start
            part["num_candidates"] = np.array([min(left, _CHUNK)])
            pieces += _split(call("rank", part), part["num_candidates"])
        return {task: np.concatenate([p[task] for p in pieces]) for task in pieces[0]}

    def _rows(self, call: Call, request: Request) -> Scores:
        return call("predict_rows", rows(self._schema, batch(self._schema, [request])))

    def _examples(self, call: Call) -> list[Scores]:
        scores: list[Scores] = []
        for group in self._groups:
            answer = call("rank_examples", {"examples": self._objects(group)})
            counts = [int(request["num_candidates"]) for request in self._requests[group]]
            scores += _split(answer, counts)
        return scores

    def _classified(self, call: Call) -> list[Scores]:
        scores: list[Scores] = []
        for group in self._groups:
            answer = call("classify", {"inputs": self._objects(group)})
            for classes, values in zip(answer["classes"], answer["scores"], strict=True):
                pairs = zip(classes, values, strict=True)
                scores.append({name.decode(): np.array([value]) for name, value in pairs})
        return scores

    def _regressed(self, call: Call, task: str) -> list[Scores]:
        answers = [call("regress", {"inputs": self._objects(group)}) for group in self._groups]
        return [{task: x[None]} for answer in answers for x in answer["outputs"]]

    def _objects(self, group: slice) -> np.ndarray:
        return np.array(self._records[group], object)


def _split(answer: Scores, counts: Sequence[int] | np.ndarray) -> list[Scores]:
    """Returns the scores of each request of a batch, without its padding."""
    return [{task: x[row, :n] for task, x in answer.items()} for row, n in enumerate(counts)]
