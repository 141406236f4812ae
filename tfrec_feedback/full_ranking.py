"""Ranking of the whole catalogue for every user, and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback import metrics
from tfrec_feedback.data.interaction_dataset import InteractionTable, item_rows, ranking_users
from tfrec_feedback.models import Recommender

SCORES_AT_ONCE = 8_000_000
"""Scores that are in memory at a time: users are ranked so many together as this allows."""


@dataclasses.dataclass(frozen=True)
class RankedUsers:
    """The first K items of every user's ranking, of U users with something to find.

    Attributes:
        users: `[U]`, numbers of the users.
        ranked: `[U, K]`, item numbers, best first; items the user is known to have met are left
            out. -1 where a user has fewer items left.
        hits: `[U, K]`, whether each is among the items to find.
        num_relevant: `[U]`, items to find.
    """

    users: np.ndarray
    ranked: np.ndarray
    hits: np.ndarray
    num_relevant: np.ndarray


def rank_catalogue(
    model: Recommender,
    table: InteractionTable,
    split: str,
    k: int,
    *,
    exclude: Sequence[str] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> RankedUsers:
    """Ranks all items for every user who has any to find in a split.

    Users are scored a block at a time, so that memory does not grow with users times items. Ties
    go to the smaller item number.

    Args:
        model: a trained recommender.
        table: the interactions.
        split: whose items are to be found.
        k: K.
        exclude: splits whose items are not ranked. Default: train, and for the test splits the
            validation splits as well.
        on_batch: called after each block with its number of users.

    Returns:
        The rankings, in the order of the users' numbers.

    Raises:
        ValueError: for a k below 1, and where nobody has anything to find.

    Reference: Wang et al., 2021 (ADT), section 5.1: full ranking.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    size = max(SCORES_AT_ONCE // table.num_items, 1)
    blocks = ranking_users(table, split, size, model.schema, exclude=exclude)
    rows = item_rows(table, model.schema)

    @tf.function(reduce_retracing=True)
    def rank(encoded: dict[str, tf.Tensor], known: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        ranked = _best(model.catalogue_logits(encoded, rows), known["excluded"], k)
        return ranked, _found(ranked, known["relevant"], table.num_items)

    rank = rank.get_concrete_function(*blocks.element_spec)  # one trace for blocks of any size
    parts: list[tuple[np.ndarray, ...]] = []
    for encoded, known in blocks:
        ranked, hits = rank(encoded, known)
        found = known["relevant"].row_lengths()
        parts.append(tuple(x.numpy() for x in (known["user"], ranked, hits, found)))
        if on_batch is not None:
            on_batch(len(ranked))
    if not parts:
        raise ValueError(f"No user has anything to find in the split {split!r}: nothing to rank.")
    return RankedUsers(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _best(scores: tf.Tensor, excluded: tf.RaggedTensor, k: int) -> tf.Tensor:
    """Returns the best items of every user, `[R, K]`; excluded ones never, rather -1."""
    cells = tf.stack([tf.cast(excluded.value_rowids(), tf.int32), excluded.flat_values], axis=1)
    lowest = tf.fill([tf.shape(cells)[0]], scores.dtype.min)
    scores = tf.tensor_scatter_nd_update(scores, cells, lowest)
    values, items = tf.math.top_k(scores, tf.minimum(k, tf.shape(scores)[1]))
    items = tf.where(values > scores.dtype.min, items, -1)
    return tf.pad(items, [[0, 0], [0, k - tf.shape(items)[1]]], constant_values=-1)


def _found(ranked: tf.Tensor, relevant: tf.RaggedTensor, num_items: int) -> tf.Tensor:
    """Returns which ranked items are among the relevant ones, bool `[R, K]`."""
    users = tf.range(tf.shape(ranked)[0], dtype=tf.int64)[:, tf.newaxis]
    keys = relevant.value_rowids() * num_items + tf.cast(relevant.flat_values, tf.int64)
    wanted = tf.reshape(users * num_items + tf.cast(ranked, tf.int64), [-1])
    # Keys are sorted: users one after another, and items within each.
    at = tf.searchsorted(keys, wanted)
    hits = tf.equal(tf.gather(keys, tf.minimum(at, tf.size(keys) - 1)), wanted)
    return tf.reshape(hits, tf.shape(ranked)) & (ranked >= 0)


def ranking_means(ranked: RankedUsers, cutoffs: Sequence[int]) -> dict[str, float]:
    """Returns `recall_<k>` and `ndcg_<k>` for every cutoff, means over users."""
    return {name: float(values.mean()) for name, values in per_user(ranked, cutoffs).items()}


def per_user(ranked: RankedUsers, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns `recall_<k>` and `ndcg_<k>` of every user, `[U]` each."""
    values = {}
    for k in cutoffs:
        values[f"recall_{k}"] = metrics.recall_per_user(ranked.hits, ranked.num_relevant, k)
        values[f"ndcg_{k}"] = metrics.ndcg_per_user(ranked.hits, ranked.num_relevant, k)
    return values


def sparsity_groups(activity: np.ndarray, num_groups: int = 4) -> np.ndarray:
    """Cuts users into groups with equally many interactions, the least active users first.

    Args:
        activity: train interactions of every user, `[U]`.
        num_groups: how many groups.

    Returns:
        The group of every user, `[U]`, from 0; users of equal activity may be in two groups.

    Example:
        >>> sparsity_groups(np.array([1, 6, 2, 3]), 2)
        array([0, 1, 0, 0])

    Reference: Wang et al., 2021 (ADT), section 5.2.3.
    """
    order = np.argsort(activity, kind="stable")
    before = np.cumsum(activity[order]) - activity[order]
    groups = np.empty(len(activity), np.int64)
    share = before / max(activity.sum(), 1)
    groups[order] = np.minimum((share * num_groups).astype(np.int64), num_groups - 1)
    return groups


def ranking_report(
    ranked: RankedUsers,
    activity: np.ndarray,
    cutoffs: Sequence[int],
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Computes the report of a full ranking.

    Args:
        ranked: from `rank_catalogue`.
        activity: train interactions of every user of the data.
        cutoffs: K of the metrics.
        confidence: of the intervals, a bootstrap over users.
        seed: of the bootstrap.

    Returns:
        JSON-ready: `users`, `metrics` (value, low and high of each), and `groups`, the same means
        for users by their activity.
    """
    values = per_user(ranked, cutoffs)
    groups = sparsity_groups(activity)[ranked.users]
    return {
        "users": len(ranked.users),
        "confidence": confidence,
        "metrics": {
            name: metrics.mean_interval(x, confidence, seed)._asdict() for name, x in values.items()
        },
        "groups": [
            {
                "users": int((groups == group).sum()),
                "largest_activity": int(activity[ranked.users[groups == group]].max()),
                **{name: float(x[groups == group].mean()) for name, x in values.items()},
            }
            for group in np.unique(groups).tolist()
        ],
    }


def compare_rankings(
    a: RankedUsers, b: RankedUsers, cutoffs: Sequence[int], confidence: float = 0.95, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Compares two models user by user.

    Args:
        a: rankings of one model.
        b: rankings of the other, of the same split.
        cutoffs: K of the metrics.
        confidence: of the intervals.
        seed: of the bootstrap.

    Returns:
        For every metric, the mean difference (a less b) as `value` with `low` and `high`, and the
        `p_value` of a paired test over users.

    Raises:
        ValueError: when the users or their items are not the same.
    """
    if not np.array_equal(a.users, b.users) or not np.array_equal(a.num_relevant, b.num_relevant):
        raise ValueError("The two models were not ranked on the same users: use the same data.")
    of_a, of_b = per_user(a, cutoffs), per_user(b, cutoffs)
    return {
        name: _numbers(metrics.paired_user_test(of_a[name], of_b[name], confidence, seed))
        for name in of_a
    }


def _numbers(test: metrics.PairedUserTest) -> dict[str, float]:
    low, high = test.interval
    return {"value": test.difference, "low": low, "high": high, "p_value": test.p_value}
