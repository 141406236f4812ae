"""Masks made from lengths, and pooling that respects them.

Every function here gives exactly 0, with gradient 0, where nothing is valid.
"""

from __future__ import annotations

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
        logits: float tensor `[..., T]`.
        mask: float tensor broadcastable to `logits`, 1 where valid.

    Returns:
        float tensor `[..., T]`: weights that sum to 1, or are all 0 where no position is valid.

    Example:
        >>> masked_softmax(tf.constant([1.0, 2.0, 3.0]), tf.constant([1.0, 1.0, 0.0])).numpy()
        array([0.26894143, 0.7310586 , 0.        ], dtype=float32)
    """
    # Where nothing is valid all logits are equal, and the mask makes their even weights 0.
    return tf.nn.softmax(tf.where(mask > 0.0, logits, MASKED_LOGIT)) * mask


def masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of the valid positions: `sum(mask * x) / max(sum(mask), 1)`.

    Args:
        values: float tensor `[..., T, D]`.
        mask: float tensor `[..., T]`, 1 where valid.

    Returns:
        float tensor `[..., D]`; 0 where no position is valid.
    """
    total = tf.reduce_sum(values * mask[..., tf.newaxis], axis=-2)
    count = tf.reduce_sum(mask, axis=-1, keepdims=True)
    return total / tf.maximum(count, 1.0)


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
    total = tf.math.unsorted_segment_sum(values, events.value_rowids(), events.nrows())
    count = tf.maximum(tf.cast(events.row_lengths(), values.dtype), 1.0)
    ones = [1] * (values.shape.rank - 1)
    return total / tf.reshape(count, [-1, *ones])
