"""Means over users: how far they may be trusted, and a test of two models on the same users."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tfrec_feedback.metrics._checks import Floats, as_vector, check_confidence
from tfrec_feedback.metrics.intervals import Interval

_MAX_DRAWS = 2_000_000
"""Random numbers held at a time (16 MB)."""


class PairedUserTest(NamedTuple):
    """Mean difference of two models over users, its interval, and its two-sided p-value."""

    difference: float
    interval: tuple[float, float]
    p_value: float


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, seed: int = 0, num_resamples: int = 1000
) -> Interval:
    """Mean of a metric over users with a bootstrap interval over them, by percentiles.

    Args:
        values: `[U]`, one value a user.
        confidence: coverage asked for.
        seed: equal seeds give equal intervals.
        num_resamples: draws of U users each.

    Returns:
        `Interval`; with a single user the ends are NaN.

    Raises:
        ValueError: for no users, values that are not finite, no resamples, or a confidence
            outside (0, 1).

    Example:
        >>> mean_interval([0.5, 0.5, 0.5])
        Interval(value=0.5, low=0.5, high=0.5)

    Reference: Davison and Hinkley, 1997, Bootstrap Methods and their Application, section 5.3.
    """
    check_confidence(confidence)
    _check_draws("num_resamples", num_resamples)
    value = _finite("values", values)
    mean = float(value.mean())
    if len(value) == 1:
        return Interval(mean, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    users = len(value)
    means = [
        value[rng.integers(users, size=(rows, users), dtype=np.int32)].mean(axis=1)
        for rows in _parts(num_resamples, users)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def paired_user_test(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, seed: int = 0, num_flips: int = 10_000
) -> PairedUserTest:
    """Compares two models by what they give to the same users.

    The interval is that of `mean_interval`. The p-value is that of a sign-flip permutation test: if
    the models are alike, every user's difference is as likely to have the other sign. It tests the
    mean itself, and users without a difference, most of them for recall, need no special rule; a
    rank test would drop them.

    Args:
        a: `[U]`, the metric of each user with one model.
        b: `[U]`, the same users with the other.
        confidence: coverage asked for.
        seed: equal seeds give equal results.
        num_flips: draws of all signs; the smallest p-value is `1 / (num_flips + 1)`.

    Returns:
        `PairedUserTest` of `mean(a) - mean(b)`. With a single user the ends are NaN.

    Raises:
        ValueError: as `mean_interval`, and for unequal numbers of users.

    Example:
        >>> paired_user_test([1.0, 0.5, 1.0], [1.0, 0.5, 1.0])
        PairedUserTest(difference=0.0, interval=(0.0, 0.0), p_value=1.0)

    Reference: Smucker et al., 2007, A Comparison of Statistical Significance Tests for Information
    Retrieval Evaluation.
    """
    _check_draws("num_flips", num_flips)
    first, second = _finite("a", a), _finite("b", b)
    if len(first) != len(second):
        raise ValueError(f"a and b need the same users, got {len(first)} and {len(second)}.")
    differences = first - second
    difference, low, high = mean_interval(differences, confidence, seed)
    nonzero = differences[differences != 0]
    observed = abs(nonzero.sum())
    # Equal sums may differ in their last digits, having been added in another order.
    slack = 1e-12 * np.abs(nonzero).sum()
    extreme = sum(
        int((np.abs(sums) >= observed - slack).sum())
        for sums in _flipped_sums(nonzero, num_flips, seed)
    )
    return PairedUserTest(difference, (low, high), (extreme + 1) / (num_flips + 1))


def _flipped_sums(values: Floats, num_flips: int, seed: int) -> Iterator[Floats]:
    """Yields `num_flips` sums of values with random signs, some at a time."""
    rng = np.random.default_rng(seed)
    total, num_bytes = values.sum(), (len(values) + 7) // 8
    for rows in _parts(num_flips, len(values)):
        # Eight signs a random byte.
        drawn = np.frombuffer(rng.bytes(rows * num_bytes), np.uint8).reshape(rows, num_bytes)
        positive = np.unpackbits(drawn, axis=1, count=len(values))
        yield 2.0 * (positive.astype(np.float64) @ values) - total


def _parts(num_rows: int, width: int) -> list[int]:
    """Cuts the rows of a table into parts that fit into memory."""
    step = max(1, _MAX_DRAWS // max(width, 1))
    return [min(step, num_rows - start) for start in range(0, num_rows, step)]


def _finite(name: str, values: ArrayLike) -> Floats:
    array = as_vector(name, values).astype(np.float64)
    if not len(array):
        raise ValueError(f"{name} needs at least one user.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; leave users without a value out.")
    return array


def _check_draws(name: str, draws: int) -> None:
    if draws < 1:
        raise ValueError(f"{name} must be at least 1, got {draws}.")
