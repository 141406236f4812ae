"""How a large request is run: piece by piece, so that a deadline can end it between two pieces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from serving.contract import derive_schema
from serving.signatures import Signature
from serving.validation import InvalidRequest
from tfrec_feedback.schema import Schema, SchemaError

_COUNT = "num_candidates"


@dataclasses.dataclass(frozen=True)
class ChunkPlan:
    """Which inputs of a `rank` signature hold candidates, `[R, N, ...]`.

    Scores of a candidate depend on its request alone, never on the other candidates: pieces give
    the scores of the whole.

    Attributes:
        candidates: names of these inputs.
    """

    candidates: frozenset[str]

    @classmethod
    def of(cls, signature: Signature, schema: Schema | None = None) -> ChunkPlan | None:
        """Returns the plan of a signature; None when it does not rank candidates.

        Args:
            signature: its inputs and outputs.
            schema: that of the model; read off the signature when left out.
        """
        scores = [spec.shape for spec in signature.outputs.values()]
        if _COUNT not in signature.inputs or any(shape != (-1, -1) for shape in scores):
            return None
        try:
            inputs = (schema or derive_schema(signature)).inputs()
        except SchemaError:
            return None
        names = {spec.name for spec in inputs if "N" in spec.axes}
        if not names or {spec.name for spec in inputs} != set(signature.inputs):
            return None
        return cls(frozenset(names))

    def size(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Returns R and N of a request.

        Raises:
            InvalidRequest: when the candidate inputs differ in N.
        """
        widths = {name: inputs[name].shape[1] for name in sorted(self.candidates)}
        if len(set(widths.values())) > 1:
            raise InvalidRequest(f"Inputs differ in their 1st dimension, the candidates: {widths}.")
        return len(inputs[_COUNT]), next(iter(widths.values()))

    def cut(
        self, inputs: Mapping[str, np.ndarray], rows: slice, candidates: slice
    ) -> dict[str, np.ndarray]:
        """Returns some requests with some of their candidates."""
        part = {name: array[rows] for name, array in inputs.items()}
        for name in self.candidates:
            part[name] = part[name][:, candidates]
        left = part[_COUNT] - candidates.start
        part[_COUNT] = np.clip(left, 0, candidates.stop - candidates.start)
        return part


def pieces(rows: int, width: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Yields pieces of `[rows, width]` candidates, at most `limit` in each.

    Whole requests share a piece while they fit: what a request's candidates share is computed once
    for each piece. Nothing to score is one piece, for the model to say what comes out.
    """
    if not rows or not width:
        yield slice(0, rows), slice(0, width)
        return
    height, width_limit = max(1, limit // width), min(width, limit)
    for row in range(0, rows, height):
        for column in range(0, width, width_limit):
            yield (
                slice(row, min(row + height, rows)),
                slice(column, min(column + width_limit, width)),
            )
