"""DUMN's gated fusion of short-term and long-term preference."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.square_dense import SquareDense


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class GatedFusion(tf.keras.layers.Layer):
    """Lets both preferences decide, component by component, how much of them is passed on.

        fused = concat(f * sigmoid(f W1), r * sigmoid(r W2))

    with f the short-term and r the long-term preference, W1 `[E, E]` and W2 `[Z, Z]`, no biases.
    Without long-term preference (no memory) the first part alone. A zero vector stays zero.

    Works on any leading axes; uses no masks.

    Call arguments:
        short_term: float tensor `[..., E]`.
        long_term: float tensor `[..., Z]` with the same leading axes, or None; the same one of
            the two at every call.

    Returns:
        float tensor `[..., E + Z]`, or `[..., E]` without long-term preference.

    Example:
        >>> layer = GatedFusion()
        >>> layer(tf.ones([2, 3, 4]), tf.ones([2, 3, 6])).shape
        TensorShape([2, 3, 10])
        >>> GatedFusion()(tf.ones([2, 3, 4])).shape
        TensorShape([2, 3, 4])

    Reference: Bian et al., 2021 (DUMN), preference-aware interactive representation.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._short_term_gate = SquareDense("sigmoid", use_bias=False, name="short_term_gate")
        self._long_term_gate = SquareDense("sigmoid", use_bias=False, name="long_term_gate")

    def call(self, short_term: tf.Tensor, long_term: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the gated preferences side by side; see the class."""
        short_term *= self._short_term_gate(short_term)
        if long_term is None:
            return short_term
        long_term = tf.convert_to_tensor(long_term, short_term.dtype)
        return tf.concat([short_term, long_term * self._long_term_gate(long_term)], axis=-1)
