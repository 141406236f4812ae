"""DUMN's feature purification: implicit feedback without what explicit feedback already says."""

from __future__ import annotations

import tensorflow as tf

_SMALLEST_NORM = 1e-3


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FeaturePurification(tf.keras.layers.Layer):
    """Removes from implicit feedback its projection on explicit feedback.

        purified = implicit - (implicit . explicit) / |explicit|^2 * explicit

    so that `purified . explicit = 0`. Where `explicit` is the zero vector (no such feedback yet)
    nothing is removed, and the gradient with respect to it is 0. Norms below 1e-3 count as 1e-3,
    which bounds the gradient by `|implicit| / 1e-3`.

    No weights. Works on any leading axes; uses no masks, so pool sequences first.

    Call arguments:
        implicit: float tensor `[..., D]`.
        explicit: float tensor `[..., D]`, broadcastable to `implicit`.

    Returns:
        float tensor `[..., D]` with the shape of `implicit`.

    Example:
        >>> FeaturePurification()(tf.constant([3.0, 1.0]), tf.constant([1.0, 1.0])).numpy()
        array([ 1., -1.], dtype=float32)

    Reference: Bian et al., 2021 (DUMN), eqs. 6-7.
    """

    def call(self, implicit: tf.Tensor, explicit: tf.Tensor) -> tf.Tensor:
        """Returns what is orthogonal to the explicit feedback; see the class."""
        explicit = tf.convert_to_tensor(explicit, implicit.dtype)
        along = tf.reduce_sum(implicit * explicit, axis=-1, keepdims=True)
        squared = tf.reduce_sum(tf.square(explicit), axis=-1, keepdims=True)
        return implicit - along / tf.maximum(squared, _SMALLEST_NORM**2) * explicit
