"""How a large request is run: piece by piece, so that a deadline can end it between two pieces.

And how a piece is run: in parts beside each other, when cores are idle.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from serving.contract import derive_schema
from serving.signatures import Signature
from serving.validation import InvalidRequest
from tfrec_feedback.schema import Schema, SchemaError

_COUNT = "num_candidates"
ROW_WEIGHT = 8
"""Candidates that cost as much as a request's own side: its context and histories."""
RECORD_WEIGHT = 64
"""The same of a serialised record, with the candidates in it."""

Piece = tuple[slice, slice]
"""Rows and candidates of a request that are run at once."""

LEAST_PART = 240
"""Candidates of a part. With halves of 200, calls that came at random moments waited longer."""

# Parts begin where a vector instruction does: their scores are those of the piece to the last bit.
_GRAIN = 16
_RECORD_BYTES = 1 << 20  # of the records that are run at once
_MAX_SCORES = 1 << 24


@dataclasses.dataclass(frozen=True)
class ChunkPlan:
    """How the requests of a signature may be cut.

    Scores of a row depend on that row alone, as TF Serving's batching takes for granted, and those
    of a candidate on its request alone, never on the other candidates: pieces give the scores of
    the whole.

    Attributes:
        candidates: names of the inputs of a `rank` signature that hold candidates, `[R, N, ...]`;
            empty for a signature that is cut by rows alone.
        weight: candidates that a row stands for besides those that are counted.
    """

    candidates: frozenset[str] = frozenset()
    weight: int = ROW_WEIGHT

    @classmethod
    def of(cls, signature: Signature, schema: Schema | None = None) -> ChunkPlan | None:
        """Returns the plan of a signature; None when it cannot be cut.

        Args:
            signature: its inputs and outputs.
            schema: that of the model; read off the signature when left out.
        """
        names = cls._candidates(signature, schema)
        if names:
            return cls(names)
        specs = [*signature.inputs.values(), *signature.outputs.values()]
        if not signature.inputs or any(not s.shape or s.shape[0] != -1 for s in specs):
            return None
        records = len(signature.inputs) == 1 and all(s.dtype == "string" for s in specs[:1])
        return cls(weight=RECORD_WEIGHT if records else ROW_WEIGHT)

    @staticmethod
    def _candidates(signature: Signature, schema: Schema | None) -> frozenset[str] | None:
        """Returns the names of the candidate inputs; None when it does not rank candidates."""
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
        return frozenset(names)

    def size(self, inputs: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Returns R and N of a request.

        Raises:
            InvalidRequest: when the candidate inputs differ in N.
        """
        if not self.candidates:
            return len(next(iter(inputs.values()))), 1
        widths = {name: inputs[name].shape[1] for name in sorted(self.candidates)}
        if len(set(widths.values())) > 1:
            raise InvalidRequest(f"Inputs differ in their 1st dimension, the candidates: {widths}.")
        return len(inputs[_COUNT]), next(iter(widths.values()))

    def pieces(self, inputs: Mapping[str, np.ndarray], chunk_rows: int) -> list[Piece]:
        """Cuts a request into rows and candidates that are run at once.

        Whole rows share a piece while they fit: what the candidates of a row share is computed
        once for each piece. Nothing to score is one piece, for the model to say what comes out.

        Args:
            inputs: of the request.
            chunk_rows: candidates that are run at once.
        """
        rows, width = self.size(inputs)
        height = chunk_rows // (self.weight + width if self.candidates else self.weight)
        if self.weight == RECORD_WEIGHT:  # every record is padded to the longest beside it
            longest = max(map(len, next(iter(inputs.values())).ravel().tolist()), default=0)
            height = min(height, _RECORD_BYTES // max(1, longest))
        return [(part, one) for part in _cut(rows, height) for one in _cut(width, chunk_rows)]

    def most_parts(self, piece: Piece) -> int:
        """Returns how many parts a piece that ranks candidates is worth cutting into."""
        rows, candidates = (part.stop - part.start for part in piece)
        if rows == 1:
            return max(1, candidates // LEAST_PART)
        return max(1, min(rows // _GRAIN, rows * (self.weight + candidates) // LEAST_PART))

    def parts(self, piece: Piece, count: int) -> list[Piece]:
        """Cuts a piece that ranks candidates into parts of about equal size.

        Rows are cut where there are many; of one row the candidates, and its own side is computed
        once a part.

        Args:
            piece: what to cut.
            count: of the parts, at most `most_parts`.
        """
        rows, candidates = piece
        if rows.stop - rows.start > 1:
            return [(part, candidates) for part in _share(rows, count)]
        return [(rows, part) for part in _share(candidates, count)]

    def cut(
        self, inputs: Mapping[str, np.ndarray], rows: slice, candidates: slice
    ) -> dict[str, np.ndarray]:
        """Returns some requests with some of their candidates."""
        part = {name: array[rows] for name, array in inputs.items()}
        if not self.candidates:
            return part
        for name in self.candidates:
            part[name] = part[name][:, candidates]
        left = part[_COUNT] - candidates.start
        part[_COUNT] = np.clip(left, 0, candidates.stop - candidates.start)
        return part


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the scores of consecutive rows as one array.

    Records of several pieces may hold different numbers of candidates: narrower pieces are padded
    with 0, which is what padded candidates score.

    Raises:
        InvalidRequest: when padding makes them too many to send.
    """
    inner = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
    if sum(map(len, parts)) * math.prod(inner) > _MAX_SCORES:
        raise InvalidRequest(
            f"{sum(map(len, parts))} records, all padded to {list(inner)} scores, are too many at "
            "once; send the largest in calls of their own."
        )
    if all(part.shape[1:] == tuple(inner) for part in parts):
        return np.concatenate(parts)
    whole = np.zeros((sum(map(len, parts)), *inner), parts[0].dtype)
    row = 0
    for part in parts:
        whole[(slice(row, row + len(part)), *map(slice, part.shape[1:]))] = part
        row += len(part)
    return whole


def _cut(size: int, most: int) -> list[slice]:
    """Returns consecutive slices of at most `most`; of nothing, one that is empty."""
    starts = range(0, max(1, size), max(1, most))
    return [slice(start, min(start + max(1, most), size)) for start in starts]


def _share(whole: slice, count: int) -> list[slice]:
    """Returns consecutive slices of about equal size."""
    grains = (whole.stop - whole.start) // _GRAIN
    inner = [whole.start + _GRAIN * (grains * one // count) for one in range(1, count)]
    bounds = [whole.start, *inner, whole.stop]
    return [slice(*pair) for pair in itertools.pairwise(bounds)]
