"""A dense layer over a request's context and its candidates, the context paid once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.products import project


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class SplitDense(tf.keras.layers.Layer):
    """`activation(concat(context, candidate) W + b)` for every candidate of a request.

    With W split by rows into W_context and W_candidate,

        concat(context, candidate) W = context W_context + candidate W_candidate

    so the first product is made once a request, and the context is never repeated N times. The
    kernel is one variable, initialised as that of a dense layer over the concatenation.

    No masks: rows of padded candidates are garbage that nothing reads.

    Args:
        units: width of the result.
        activation: name or function, as of `tf.keras.layers.Dense`; None for none.
        use_bias: adds b.

    Call arguments:
        inputs: `(context, candidates)`, float tensors `[R, C]` and `[R, N, K]`; C may be 0.

    Returns:
        float tensor `[R, N, units]`.

    Raises:
        ValueError: for units below 1.

    Example:
        >>> layer = SplitDense(8, activation="relu")
        >>> layer((tf.ones([2, 3]), tf.ones([2, 5, 4]))).shape
        TensorShape([2, 5, 8])
        >>> layer.kernel.shape
        TensorShape([7, 8])
    """

    def __init__(self, units: int, activation: Any = None, use_bias: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1, got {units}.")
        self.units = units
        self.activation = tf.keras.activations.get(activation)
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        """Creates the kernel `[C + K, units]`; its first C rows belong to the context."""
        context, candidates = (int(tf.TensorShape(shape)[-1]) for shape in input_shape)
        self.kernel = self.add_weight(name="kernel", shape=(context + candidates, self.units))
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the dense layer of every candidate; see the class."""
        context, candidates = inputs
        rows = context.shape[-1]
        shared = project(context, self.kernel[:rows])
        if self.use_bias:
            shared += self.bias
        return self.activation(shared[:, tf.newaxis] + project(candidates, self.kernel[rows:]))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": tf.keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
