"""Ranks with ties, the one computation under every AUC of this package."""

from __future__ import annotations

import numpy as np

from tfrec_feedback.metrics._checks import Floats, Ints


def mid_ranks(values: Floats) -> Floats:
    """Returns ranks from 1; equal values share the mean of the ranks they take. O(n log n).

    Args:
        values: float array `[n]` without NaN.

    Returns:
        float64 array `[n]` of whole and half numbers.

    Example:
        >>> mid_ranks(np.array([0.5, 0.2, 0.5, 0.9])).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    order = np.argsort(values, kind="stable")
    starts = _starts_of_runs(values[order])
    lengths = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + 0.5 * (lengths + 1), lengths)
    return ranks


def won_pairs(
    scores: Floats, positive: Floats, negative: Floats, groups: Ints, num_groups: int
) -> Floats:
    """Returns, per group, the weight of (positive, negative) pairs in the right order.

    A pair weighs the product of its two weights and counts half when its scores are equal. Only
    pairs inside one group count. One sort, whatever the number of groups.

    Args:
        scores: `[n]` without NaN.
        positive: `[n]` weight of the row as a positive, 0 for negatives.
        negative: `[n]` weight of the row as a negative, 0 for positives.
        groups: `[n]` int group of each row, in `[0, num_groups)`, every group present.
        num_groups: number of groups.

    Returns:
        float64 array `[num_groups]`; exact for 0/1 weights while every group holds fewer than
        2**52 pairs.
    """
    if not len(scores):
        return np.zeros(num_groups)
    order = np.lexsort((scores, groups))
    groups = groups[order]
    starts = _starts_of_runs(scores[order], groups)
    positive = np.add.reduceat(positive[order], starts)
    negative = np.add.reduceat(negative[order], starts)
    run_group = groups[starts]
    below = np.cumsum(negative) - negative
    first_run = np.searchsorted(run_group, np.arange(num_groups))
    below_in_group = below - below[first_run][run_group]
    won = positive * (below_in_group + 0.5 * negative)
    return np.bincount(run_group, won, minlength=num_groups).astype(np.float64)


def _starts_of_runs(*keys: Floats | Ints) -> Ints:
    """Returns where a new run of equal keys begins; the keys are sorted together."""
    changes = np.zeros(len(keys[0]), dtype=bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)
