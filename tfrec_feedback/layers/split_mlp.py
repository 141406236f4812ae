"""The deep part of the click models: dense layers over a user and his candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.dice import Activation
from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.split_dense import SplitDense
from tfrec_feedback.layers.widths import check_widths


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class SplitMLP(tf.keras.layers.Layer):
    """Dense layers over `concat(context, candidate)` of every candidate of a request.

    The first layer is a `SplitDense`: the context's part of it is computed once a request.

    Args:
        units: widths of the layers.
        activation: `"dice"`, or any of Keras.
        dropout: rate after each layer while training.

    Call arguments:
        inputs: `(context, candidates)`, float tensors `[R, C]` and `[R, N, K]`.
        mask: `[R, N]`, 1 where a candidate is valid; Dice's statistics need it.
        training: enables dropout and Dice's batch statistics.

    Returns:
        float tensor `[R, N, units[-1]]`; garbage at padded candidates, which nothing reads.

    Raises:
        ValueError: without units, or for a width below 1.

    Example:
        >>> layer = SplitMLP((8, 4))
        >>> layer((tf.ones([2, 3]), tf.ones([2, 5, 6]))).shape
        TensorShape([2, 5, 4])
    """

    def __init__(
        self,
        units: Sequence[int] = (256, 128, 64),
        activation: Any = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_widths("units", units, (256, 128, 64))
        self.units = tuple(units)
        self.activation = activation
        self.dropout = dropout
        self._first = SplitDense(self.units[0])
        self._deeper = [tf.keras.layers.Dense(width) for width in self.units[1:]]
        self._activations = [Activation(activation) for _ in self.units]
        self._dropouts = [ResumableDropout(dropout) for _ in self.units]

    def call(
        self,
        inputs: Sequence[tf.Tensor],
        mask: tf.Tensor | None = None,
        training: bool | None = None,
    ) -> tf.Tensor:
        """Returns the last layer of every candidate; see the class."""
        hidden: Any = inputs
        steps = zip([self._first, *self._deeper], self._activations, self._dropouts, strict=True)
        for layer, activation, dropout in steps:
            hidden = activation((layer(hidden), mask), training=training)
            hidden = dropout(hidden, training=training)
        return hidden

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": self.activation,
            "dropout": self.dropout,
        }
