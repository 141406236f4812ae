"""Triplet loss of DUMN: what is written lies near its own feedback, far from the opposite."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

MININGS = ("batch_hard", "user_hard", "random")
_SMALLEST_NORM = 1e-3
_FAR = 4.0
"""More than any distance."""


class SampledItems(NamedTuple):
    """Items drawn from the logs of a batch of requests, those of one request side by side.

    Attributes:
        vectors: float tensor `[P, W]`.
        requests: integer tensor `[P]`, which request each was drawn for, rising.
        keys: int64 tensor `[P]`, equal for equal items.
    """

    vectors: tf.Tensor
    requests: tf.Tensor
    keys: tf.Tensor


def cosine_distance(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns `1 - cos(a, b)` over the last axis, in [0, 2]; 1 where either is 0."""
    return 1.0 - tf.reduce_sum(_normalized(a) * _normalized(b), axis=-1)


def triplet_loss(
    anchors: tf.Tensor,
    requests: tf.Tensor,
    positives: SampledItems,
    negatives: SampledItems,
    *,
    margin: float = 0.2,
    mining: str = "batch_hard",
) -> tf.Tensor:
    """Mean of `max(d(anchor, positive) - d(anchor, negative) + margin, 0)`, d = 1 - cos.

    - `batch_hard`: the farthest positive and the nearest negative of the whole batch;
    - `user_hard`: the same among the items drawn for the anchor's own request;
    - `random`: the first item of each kind drawn for the anchor's own request.

    An item that is also the chosen positive, or was drawn as a positive for the same request, is
    no negative. Anchors without a positive or a negative do not count.

    Args:
        anchors: float tensor `[A, W]`.
        requests: integer tensor `[A]`, the request of each anchor.
        positives: items of the anchors' own feedback.
        negatives: items of the opposite feedback.
        margin: how much nearer the positive should be.
        mining: one of `MININGS`.

    Returns:
        float scalar; exactly 0 without a usable anchor.

    Example:
        >>> one = tf.constant([0])
        >>> near = SampledItems(tf.constant([[1.0, 1.0]]), one, tf.constant([7], tf.int64))
        >>> far = SampledItems(tf.constant([[2.0, 1.0]]), one, tf.constant([8], tf.int64))
        >>> float(triplet_loss(tf.constant([[1.0, 0.0]]), one, near, far))  # doctest: +ELLIPSIS
        0.387...

    Reference: Bian et al., 2021 (DUMN), sections 3.6 and 4.3.4; Hermans et al., 2017 (batch hard).
    """
    if mining not in MININGS:
        raise ValueError(f"mining must be one of {list(MININGS)}, got {mining!r}.")
    drawn = positives
    if mining == "random":
        positives, negatives = _first_of_request(positives), _first_of_request(negatives)
    own = None if mining == "batch_hard" else requests
    fixed = _normalized(tf.stop_gradient(anchors))
    positive, has_positive = _farthest(fixed, own, positives)
    chosen = tf.gather(_padded(positives).keys, positive)
    excluded = _same_items(requests, chosen, drawn, negatives)
    negative, has_negative = _nearest(fixed, own, negatives, excluded)
    usable = tf.cast(has_positive & has_negative, anchors.dtype)
    losses = tf.nn.relu(
        cosine_distance(anchors, tf.gather(_padded(positives).vectors, positive))
        - cosine_distance(anchors, tf.gather(_padded(negatives).vectors, negative))
        + margin
    )
    return tf.math.divide_no_nan(tf.reduce_sum(losses * usable), tf.reduce_sum(usable))


def _normalized(vectors: tf.Tensor) -> tf.Tensor:
    squared = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    scaled = vectors * tf.math.rsqrt(tf.maximum(squared, _SMALLEST_NORM**2))
    return tf.where(squared > 0.0, scaled, 0.0)


def _first_of_request(items: SampledItems) -> SampledItems:
    before = tf.concat([[-1], items.requests[:-1]], 0)[: tf.shape(items.requests)[0]]
    first = items.requests != tf.cast(before, items.requests.dtype)
    return SampledItems(*(tf.boolean_mask(x, first) for x in items))


def _padded(items: SampledItems) -> SampledItems:
    """Adds an item of no request, so that there is always one to point at."""
    return SampledItems(
        tf.pad(items.vectors, [[0, 1], [0, 0]]),
        tf.pad(items.requests, [[0, 1]], constant_values=-1),
        tf.pad(items.keys, [[0, 1]], constant_values=-1),
    )


def _distances(fixed: tf.Tensor, own: tf.Tensor | None, items: SampledItems) -> tuple:
    """Returns distances `[A, P + 1]` and which of the items may be chosen."""
    items = _padded(items)
    vectors = _normalized(tf.stop_gradient(items.vectors))
    distances = 1.0 - tf.tensordot(fixed, vectors, [[1], [1]])
    if own is None:
        allowed = tf.broadcast_to(items.requests >= 0, tf.shape(distances))
    else:
        own = tf.cast(own, items.requests.dtype)
        allowed = items.requests[tf.newaxis] == own[:, tf.newaxis]
    return distances, allowed


def _farthest(fixed: tf.Tensor, own: tf.Tensor | None, items: SampledItems) -> tuple:
    distances, allowed = _distances(fixed, own, items)
    masked = tf.where(allowed, distances, -_FAR)
    return tf.argmax(masked, axis=1), tf.reduce_any(allowed, axis=1)


def _nearest(
    fixed: tf.Tensor, own: tf.Tensor | None, items: SampledItems, excluded: tf.Tensor
) -> tuple:
    distances, allowed = _distances(fixed, own, items)
    allowed &= ~excluded
    masked = tf.where(allowed, distances, _FAR)
    return tf.argmin(masked, axis=1), tf.reduce_any(allowed, axis=1)


def _same_items(
    requests: tf.Tensor, chosen: tf.Tensor, drawn: SampledItems, negatives: SampledItems
) -> tf.Tensor:
    """Marks `[A, P + 1]` negatives that are the chosen positive or were drawn as positives."""
    keys = _padded(negatives).keys[tf.newaxis]
    same = keys == chosen[:, tf.newaxis]
    # Items of a request stand side by side: [A, k], -1 where an anchor has fewer.
    own = tf.RaggedTensor.from_value_rowids(
        drawn.keys,
        tf.cast(drawn.requests, tf.int64),
        nrows=1 + tf.cast(tf.maximum(_last(requests), _last(drawn.requests)), tf.int64),
    )
    own_keys = tf.gather(own.to_tensor(default_value=-1), requests)

    def with_one(position: tf.Tensor, marked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return position + 1, marked | (keys == own_keys[:, position, tf.newaxis])

    width = tf.shape(own_keys)[1]
    return tf.while_loop(lambda i, _: i < width, with_one, (0, same))[1]


def _last(requests: tf.Tensor) -> tf.Tensor:
    """Returns the largest request number, -1 of none."""
    return tf.reduce_max(tf.concat([[-1], tf.cast(requests, tf.int32)], 0))
