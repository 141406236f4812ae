"""DFN's external feedback interaction: strong feedback reads the weak one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import length_mask, masked_softmax
from tfrec_feedback.layers.products import batched_product

_SMALLEST_SCORE = 1e-6


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class ExternalFeedbackInteraction(tf.keras.layers.Layer):
    """Picks from noisy behaviours what an instructor vector says is real.

        e_i   = MLP(concat(g, u_i, g - u_i, g * u_i)),   4D -> hidden_units ReLU -> 1
        alpha = normalised over the valid behaviours
        f     = sum_i alpha_i u_i

    The first layer is linear in the four parts, so it is split: the parts of g are paid once a
    candidate, the parts of u once a request, and only the product meets both. Exact.

    Padded behaviours take no part. Without behaviours the result is 0, with gradient 0.

    Args:
        hidden_units: width of the hidden layer.
        normalization: how scores become weights. `"softmax"`; `"linear"`, the printed score over
            the sum of scores, of the positive part of the scores so that the sum cannot vanish;
            `"softplus"`, the same of softplus scores, which keeps a gradient below zero.
        score_scale: scores are multiplied by it first; 1 as printed, D^-0.5 in the official code.

    Call arguments:
        instructors: float tensor `[R, N, D]`, one g a candidate.
        behaviours: float tensor `[R, T, D]`.
        lengths: integer tensor `[R]`, valid behaviours; the first ones count.

    Returns:
        float tensor `[R, N, D]`.

    Raises:
        ValueError: for wrong options.

    Example:
        >>> layer = ExternalFeedbackInteraction(hidden_units=8)
        >>> interest = layer(tf.ones([1, 3, 4]), tf.ones([1, 5, 4]), tf.constant([0]))
        >>> float(tf.reduce_max(interest))
        0.0

    Reference: Xie et al., 2020 (DFN), eqs. 5-6.
    """

    def __init__(
        self,
        hidden_units: int = 32,
        normalization: str = "softmax",
        score_scale: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if normalization not in ("softmax", "linear", "softplus"):
            raise ValueError(
                f"normalization must be 'softmax', 'linear' or 'softplus', got {normalization!r}."
            )
        if hidden_units < 1:
            raise ValueError(f"hidden_units must be at least 1, got {hidden_units}.")
        self.hidden_units = hidden_units
        self.normalization = normalization
        self.score_scale = score_scale

    def build(self, input_shape: Any) -> None:
        """Creates the network; rows of `hidden_kernel` are in the order g, u, g - u, g * u."""
        width = int(tf.TensorShape(input_shape)[-1])
        self.hidden_kernel = self.add_weight(
            name="hidden_kernel", shape=(4 * width, self.hidden_units)
        )
        self.hidden_bias = self.add_weight(
            name="hidden_bias", shape=(self.hidden_units,), initializer="zeros"
        )
        self.score_kernel = self.add_weight(name="score_kernel", shape=(self.hidden_units, 1))
        self.score_bias = self.add_weight(name="score_bias", shape=(1,), initializer="zeros")
        super().build(input_shape)

    def call(self, instructors: tf.Tensor, behaviours: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Returns one vector a candidate; see the class."""
        behaviours = tf.convert_to_tensor(behaviours, instructors.dtype)
        mask = length_mask(lengths, tf.shape(behaviours)[1])[:, tf.newaxis, :]
        weights = self._normalize(self._scores(instructors, behaviours), mask)
        return batched_product(weights, behaviours)

    def _scores(self, g: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        """Scores every behaviour for every instructor: `[R, N, T]`."""
        of_g, of_u, of_difference, of_product = tf.split(self.hidden_kernel, 4)
        from_g = tf.tensordot(g, of_g + of_difference, 1)[:, :, tf.newaxis]
        from_u = tf.tensordot(u, of_u - of_difference, 1) + self.hidden_bias
        product = g[:, :, tf.newaxis] * u[:, tf.newaxis]  # [R, N, T, D]
        hidden = tf.nn.relu(from_g + from_u[:, tf.newaxis] + tf.tensordot(product, of_product, 1))
        scores = tf.tensordot(hidden, self.score_kernel, 1)[..., 0] + self.score_bias
        return scores * self.score_scale

    def _normalize(self, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        if self.normalization == "softmax":
            return masked_softmax(scores, mask)
        positive = tf.nn.relu if self.normalization == "linear" else tf.nn.softplus
        scores = (positive(scores) + _SMALLEST_SCORE) * mask
        return tf.math.divide_no_nan(scores, tf.reduce_sum(scores, axis=-1, keepdims=True))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "normalization": self.normalization,
            "score_scale": self.score_scale,
        }
