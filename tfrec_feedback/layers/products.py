"""Products that avoid what TensorFlow gets wrong: the one place that may call `tf.matmul`."""

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


def project(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`x W` along the last axis, whose static width D may be 0.

    One product of two matrices: `tf.tensordot` is some twenty operations, which count in a small
    request. In a graph, a product of inner width 0 followed by a bias is fused by oneDNN into a
    primitive that ends the process (TensorFlow 2.20), so such a product is never made.

    Args:
        x: float tensor `[..., D]`.
        kernel: float tensor `[D, K]`.

    Returns:
        float tensor `[..., K]`; 0 where D = 0.

    Example:
        >>> project(tf.ones([2, 0]), tf.ones([0, 3])).shape
        TensorShape([2, 3])
    """
    if x.shape[-1] == 0:
        return tf.zeros(tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], axis=0), x.dtype)
    product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    if x.shape.rank == 2:
        return product
    return tf.reshape(product, tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], axis=0))


def weighted_sum(weights: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """`sum_p weights_p rows_p`, as a product: XLA's own sums are several times slower here.

    The product has a second row that nothing reads: XLA fuses a product of one row into a loop
    that runs across memory, at some ten times the cost.

    Args:
        weights: float tensor `[P]`.
        rows: float tensor `[P, H]`.

    Returns:
        float tensor `[H]`; 0 where P = 0.

    Example:
        >>> weighted_sum(tf.constant([1.0, 2.0]), tf.constant([[1.0, 0.0], [3.0, 1.0]])).numpy()
        array([7., 2.], dtype=float32)
    """
    return batched_product(tf.stack([weights, weights]), rows)[0]
