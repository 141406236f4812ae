"""What every metric asks of its inputs before it counts anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def as_vector(name: str, values: ArrayLike, length: int | None = None) -> NDArray[Any]:
    """Returns `values` as a one-dimensional array, or raises ValueError."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, got shape {array.shape}; pass the valid entries "
            "only, flattened with `.ravel()` or a mask."
        )
    if length is not None and len(array) != length:
        raise ValueError(
            f"{name} has {len(array)} entries and labels {length}; both need one entry a row."
        )
    return array


def as_labels(labels: ArrayLike) -> Floats:
    """Returns labels as float64 zeros and ones, or raises ValueError."""
    array = as_vector("labels", labels)
    wrong = ~((array == 0) | (array == 1))
    if wrong.any():
        raise ValueError(f"labels must be 0 or 1, got {array[wrong][0]!r}.")
    return array.astype(np.float64)


def as_scores(name: str, scores: ArrayLike, length: int) -> Floats:
    """Returns scores as float64 without NaN, or raises ValueError. Infinite scores are allowed."""
    array = as_vector(name, scores, length).astype(np.float64)
    missing = np.isnan(array)
    if missing.any():
        raise ValueError(
            f"{name} holds {missing.sum()} NaN, the first at row {missing.argmax()}; NaN has no "
            "rank. Look for a diverged model or an unparsed feature."
        )
    return array


def as_weights(sample_weight: ArrayLike | None, length: int) -> Floats:
    """Returns sample weights as float64, ones where none are given, or raises ValueError."""
    if sample_weight is None:
        return np.ones(length)
    weights = as_vector("sample_weight", sample_weight, length).astype(np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("sample_weight must hold finite numbers that are not negative.")
    return weights


def check_confidence(confidence: float) -> None:
    """Raises ValueError unless `confidence` lies strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, as in 0.95, got {confidence!r}.")
