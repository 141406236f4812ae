"""How many of the items a user would have liked stand at the top of his list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfrec_feedback.metrics._checks import Floats, as_vector


def recall_at_k(ranked: Sequence[Any], relevant: Iterable[Any], k: int) -> float:
    """Share of a user's relevant items that are among the first k of his list.

    Args:
        ranked: item ids, best first, without those that may not be recommended.
        relevant: ids of the items he turned out to like; their order does not matter.
        k: how much of the list counts.

    Returns:
        `hits / |relevant|`, in [0, 1].

    Raises:
        ValueError: for k < 1, an item ranked twice, or nothing relevant.

    Example:
        >>> recall_at_k([5, 2, 9, 1, 7], {2, 8}, k=3)
        0.5

    Reference: divided as in the code of Wang et al., 2021 (ADT).
    """
    hits, num_relevant = _hits(ranked, relevant, k)
    return float(recall_per_user(hits, num_relevant, k)[0])


def ndcg_at_k(ranked: Sequence[Any], relevant: Iterable[Any], k: int) -> float:
    """Normalised discounted cumulative gain of the first k items of a user's list.

    A hit on rank r, from 1, gains `1 / log2(r + 1)`; the sum is divided by that of a perfect list,
    which has `min(k, |relevant|)` hits.

    Args:
        ranked: as of `recall_at_k`.
        relevant: as of `recall_at_k`.
        k: how much of the list counts.

    Returns:
        Gain in [0, 1].

    Raises:
        ValueError: as `recall_at_k`.

    Example:
        >>> round(ndcg_at_k([5, 2, 9, 1, 7], {2, 7, 8}, k=5), 6)
        0.477624

    Reference: Jarvelin and Kekalainen, 2002; the ideal gain as in the code of ADT (2021).
    """
    hits, num_relevant = _hits(ranked, relevant, k)
    return float(ndcg_per_user(hits, num_relevant, k)[0])


def recall_per_user(hits: ArrayLike, num_relevant: ArrayLike, k: int) -> Floats:
    """`recall_at_k` of many users.

    Args:
        hits: bool `[U, K]`, whether each user's items, best first, are relevant; False after the
            end of a shorter list.
        num_relevant: int `[U]`, relevant items of each user, on his list or not; at least 1.
        k: how many columns count, at most K.

    Returns:
        float64 array `[U]`.

    Raises:
        ValueError: for other shapes or k, users without relevant items, or more hits than those.

    Example:
        >>> recall_per_user([[True, False], [True, True]], [4, 2], k=2).tolist()
        [0.25, 1.0]
    """
    hit, relevant = _checked(hits, num_relevant, k)
    return hit[:, :k].sum(axis=1) / relevant


def ndcg_per_user(hits: ArrayLike, num_relevant: ArrayLike, k: int) -> Floats:
    """`ndcg_at_k` of many users; arguments and errors as of `recall_per_user`.

    Returns:
        float64 array `[U]`.

    Example:
        >>> ndcg_per_user([[False, True], [True, True]], [1, 2], k=2).round(6).tolist()
        [0.63093, 1.0]
    """
    hit, relevant = _checked(hits, num_relevant, k)
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gains)[np.minimum(relevant, k) - 1]
    return np.minimum((hit[:, :k] * gains).sum(axis=1) / ideal, 1.0)


def _hits(ranked: Sequence[Any], relevant: Iterable[Any], k: int) -> tuple[NDArray[Any], list[int]]:
    """Returns the hits of one user, `[1, max(k, length)]`, and how many there could be."""
    ranked, wanted = list(ranked), set(relevant)
    if len(set(ranked)) != len(ranked):
        twice = next(item for item in ranked if ranked.count(item) > 1)
        raise ValueError(f"ranked holds {twice!r} more than once; an item has one rank.")
    hits = np.zeros((1, max(k, len(ranked), 1)), dtype=bool)
    hits[0, : len(ranked)] = [item in wanted for item in ranked]
    return hits, [len(wanted)]


def _checked(
    hits: ArrayLike, num_relevant: ArrayLike, k: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    hit = np.asarray(hits)
    if hit.ndim != 2 or hit.dtype != np.bool_:
        raise ValueError(f"hits must be bool [U, K], got {hit.dtype} of shape {hit.shape}.")
    if not 1 <= k <= hit.shape[1]:
        raise ValueError(f"k must lie between 1 and the {hit.shape[1]} ranked items, got {k}.")
    relevant = as_vector("num_relevant", num_relevant).astype(np.int64)
    if len(relevant) != len(hit):
        raise ValueError(f"num_relevant has {len(relevant)} entries for {len(hit)} users.")
    if (relevant < 1).any():
        raise ValueError(
            f"{(relevant < 1).sum()} users have no relevant items, where recall and NDCG are "
            "undefined; leave them out."
        )
    if (hit.sum(axis=1) > relevant).any():
        raise ValueError("A user has more hits than relevant items.")
    return hit, relevant
