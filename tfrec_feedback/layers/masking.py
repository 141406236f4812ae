"""Masks made from lengths, and pooling that respects them.

Every function here gives exactly 0, with gradient 0, where nothing is valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

MASKED_LOGIT = -1e9
"""Logit of a position that takes no part: its exponential is exactly 0."""


def length_mask(lengths: tf.Tensor, max_length: tf.Tensor | int) -> tf.Tensor:
    """Marks the first `lengths` positions.

    Args:
        lengths: integer tensor `[...]`.
        max_length: T, the width of the mask.

    Returns:
        float32 tensor `[..., T]` of ones (valid) and zeros (padding).
    """
    return tf.sequence_mask(lengths, max_length, dtype=tf.float32)


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis, restricted to valid positions.

    Args:
        logits: float32 tensor `[..., T]`; shorter types cannot hold the logit of padding.
        mask: float tensor broadcastable to `logits`, 1 where valid.

    Returns:
        float tensor `[..., T]`: weights that sum to 1, or are all 0 where no position is valid.

    Example:
        >>> weights = masked_softmax(tf.constant([1.0, 2.0, 3.0]), tf.constant([1.0, 1.0, 0.0]))
        >>> [round(float(weight), 4) for weight in weights]
        [0.2689, 0.7311, 0.0]
    """
    # Where nothing is valid all logits are equal, and the mask makes their even weights 0.
    return tf.nn.softmax(tf.where(mask > 0.0, logits, MASKED_LOGIT)) * mask


def ragged_mean(events: tf.RaggedTensor) -> tf.Tensor:
    """Mean of the events of every request.

    Args:
        events: ragged float tensor `[R, (n), ...]`.

    Returns:
        float tensor `[R, ...]`; 0 where a request has no events.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths([[1.0, 2.0], [3.0, 4.0]], [2, 0])
        >>> ragged_mean(events).numpy()
        array([[2., 3.],
               [0., 0.]], dtype=float32)
    """
    values = events.flat_values
    total = sum_rows(values, events.value_rowids(), events.nrows())
    count = tf.maximum(tf.cast(events.row_lengths(), values.dtype), 1.0)
    ones = [1] * (values.shape.rank - 1)
    return total / tf.reshape(count, [-1, *ones])


def take_rows(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """`tf.gather(x, rows)` with a dense gradient, made without a sparse one in between.

    Args:
        x: float tensor `[R, ...]`.
        rows: integer tensor `[V]`, in any order; `repeat_rows` is faster where it is sorted.

    Returns:
        float tensor `[V, ...]`.
    """
    return _taken(x, rows, tf.math.unsorted_segment_sum)


def repeat_rows(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """`take_rows` for sorted rows, such as the request of every event.

    Args:
        x: float tensor `[R, ...]`.
        rows: integer tensor `[V]`, not falling.

    Returns:
        float tensor `[V, ...]`.
    """
    return _taken(x, rows, _sorted_sum)


def _taken(x: tf.Tensor, rows: tf.Tensor, add_up: Callable[..., tf.Tensor]) -> tf.Tensor:
    @tf.custom_gradient
    def taken(values: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return add_up(upstream, rows, tf.shape(values)[0])

        return tf.gather(values, rows), gradient

    return taken(x)


def sum_rows(x: tf.Tensor, rows: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """Adds up what belongs to each of `num_rows` rows, for sorted rows.

    Args:
        x: float tensor `[V, ...]`.
        rows: integer tensor `[V]`, not falling: where each is added, in 0..num_rows - 1.
        num_rows: R.

    Returns:
        float tensor `[R, ...]`; 0 for rows that nothing belongs to.
    """

    @tf.custom_gradient
    def summed(values: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.gather(upstream, rows)

        return _sorted_sum(values, rows, num_rows), gradient

    return summed(x)


def _sorted_sum(x: tf.Tensor, rows: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """A sum over sorted segments, four times as fast here as one over unsorted ones."""
    total = tf.math.segment_sum(x, rows)  # As long as the last row that anything belongs to.
    missing = tf.cast(num_rows, tf.int32) - tf.shape(total)[0]
    return tf.pad(total, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
