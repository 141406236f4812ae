"""How requests share messages: packed while they are small, cut where they are large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
import numpy as np

from serving.errors import ServingError
from tfrec_feedback.schema import Schema

Scores = dict[str, np.ndarray]
"""Scores by task: `[N]` for one request, `[R, N]` for a batch."""


def groups(counts: Sequence[int], limit: int) -> list[tuple[int, int, int]]:
    """Packs requests, in order, while rows times the widest of them stay within the limit.

    Returns:
        `(start, stop, width)` of every group; a request wider than the limit is one of its own.
    """
    packed: list[tuple[int, int, int]] = []
    for index, count in enumerate(counts):
        if packed:
            start, _, width = packed[-1]
            widest = max(width, count)
            if (index + 1 - start) * max(1, widest) <= limit:
                packed[-1] = (start, index + 1, widest)
                continue
        packed.append((index, index + 1, count))
    return packed


def cut(
    schema: Schema, batch: Mapping[str, np.ndarray], rows: slice, candidates: slice
) -> dict[str, np.ndarray]:
    """Returns some requests of a batch with some of their candidates."""
    counts = batch["num_candidates"]
    if (rows.start, rows.stop) == (0, len(counts)) and candidates.start == 0:
        if candidates.stop >= counts.max(initial=1):
            return dict(batch)  # all of it, as most calls ask for
    part = {}
    for spec in schema.inputs():
        array = batch[spec.name][rows]
        part[spec.name] = array[:, candidates] if "N" in spec.axes else array
    left = part["num_candidates"] - candidates.start
    part["num_candidates"] = np.clip(left, 0, candidates.stop - candidates.start)
    return part


def checked(scores: Scores, task: str, shape: tuple[int, int]) -> np.ndarray:
    """Returns the scores of one task, or raises when there are fewer than were asked for."""
    values = scores.get(task)
    if values is None or values.ndim != 2 or len(values) != shape[0] or values.shape[1] < shape[1]:
        got = sorted(scores) if values is None else list(values.shape)
        raise ServingError(
            grpc.StatusCode.INTERNAL,
            f"Expected scores {task!r} of shape {list(shape)}, the server answered {got}.",
        )
    return values
