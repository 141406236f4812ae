"""Matrix products of equally shaped batches: the one place that may call `tf.matmul`."""

from __future__ import annotations

import tensorflow as tf


def batched_product(a: tf.Tensor, b: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """Multiplies matrices batch by batch.

    A `tf.matmul` that broadcasts one operand corrupts memory on some CPUs (TensorFlow 2.19 to
    2.21), so both must have the same rank, with equal leading axes.

    Args:
        a: float tensor `[..., I, K]`.
        b: float tensor `[..., K, J]`, or `[..., J, K]` when transposed.
        transpose_b: multiplies by the transpose of each matrix of `b`.

    Returns:
        float tensor `[..., I, J]`.

    Raises:
        ValueError: when ranks, or leading axes known before the call, differ.
    """
    if a.shape.rank != b.shape.rank or not a.shape[:-2].is_compatible_with(b.shape[:-2]):
        raise ValueError(
            f"Operands must agree in rank and leading axes, got shapes {a.shape} and {b.shape}."
        )
    return tf.matmul(a, b, transpose_b=transpose_b)
