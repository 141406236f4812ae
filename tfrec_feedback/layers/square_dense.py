"""A dense layer as wide as its input."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.products import project


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class SquareDense(tf.keras.layers.Layer):
    """`activation(x W + b)` as wide as its input, which is first known when it is called.

    Args:
        activation: name or function, as of `tf.keras.layers.Dense`; None for none.
        use_bias: adds b.

    Call arguments:
        inputs: float tensor `[..., D]`.

    Returns:
        float tensor `[..., D]`.

    Example:
        >>> layer = SquareDense("relu")
        >>> layer(tf.ones([2, 3, 4])).shape, layer.kernel.shape
        (TensorShape([2, 3, 4]), TensorShape([4, 4]))
    """

    def __init__(self, activation: Any = None, use_bias: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = tf.keras.activations.get(activation)
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        """Creates the kernel `[D, D]`, and the bias where there is one."""
        width = int(tf.TensorShape(input_shape)[-1])
        self.kernel = self.add_weight(name="kernel", shape=(width, width))
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the dense layer of every vector; see the class."""
        result = project(inputs, self.kernel)
        return self.activation(result + self.bias if self.use_bias else result)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "activation": tf.keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
