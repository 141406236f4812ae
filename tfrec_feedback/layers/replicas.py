"""Sums over the replicas of a `tf.distribute` strategy."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def sum_over_replicas(tensors: Any) -> Any:
    """Adds tensors over all replicas, in one exchange; the tensors themselves with one replica.

    Args:
        tensors: float32 tensors in any structure, of the same shapes on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensors
    flat = tf.nest.flatten(tensors)
    packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in flat], axis=0)
    packed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
    parts = tf.split(packed, [tf.size(tensor) for tensor in flat])
    shaped = [tf.reshape(part, tf.shape(x)) for part, x in zip(parts, flat, strict=True)]
    return tf.nest.pack_sequence_as(tensors, shaped)
