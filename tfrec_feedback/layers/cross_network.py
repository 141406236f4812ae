"""DCN's cross network in its vector form, per request."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.products import project


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class VectorCrossNetwork(tf.keras.layers.Layer):
    """`x_{l+1} = x_0 (x_l . w_l) + b_l + x_l`, then the score `w . x_L`, without forming any x_l.

    By induction every x_l is `a_l x_0 + c_l`, with one number a_l a candidate and a vector c_l
    that is the sum of the biases so far:

        a_0 = 1,   a_{l+1} = a_l + a_l (x_0 . w_l) + c_l . w_l,   c_{l+1} = c_l + b_l

    All a candidate costs is the products `x_0 . w_l`, and the user's part of those is made once a
    request: the network of L layers over D numbers is one product with an `[D, L + 1]` matrix.

    Args:
        num_layers: L.

    Call arguments:
        inputs: `(user, candidates)`, float tensors `[R, C]` and `[R, N, K]`; x_0 is both side by
            side, D = C + K.

    Returns:
        float tensor `[R, N]`, the score of every candidate.

    Reference: Wang et al., 2017, Deep & Cross Network, eq. 3; section 3 on its rank-one form.
    """

    def __init__(self, num_layers: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}.")
        self.num_layers = num_layers

    def build(self, input_shape: Any) -> None:
        """Creates w_l (the last column is the output's w) and b_l."""
        width = sum(int(tf.TensorShape(shape)[-1]) for shape in input_shape)
        self.kernel = self.add_weight(name="kernel", shape=(width, self.num_layers + 1))
        self.bias = self.add_weight(
            name="bias", shape=(self.num_layers, width), initializer="zeros"
        )
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the score of every candidate; see the class."""
        user, candidates = inputs
        rows = user.shape[-1]
        products = project(user, self.kernel[:rows])[:, tf.newaxis]
        products += project(candidates, self.kernel[rows:])  # x_0 . w_l
        # c_l . w_l, where c_l is the sum of the first l biases.
        of_bias = tf.reduce_sum(
            tf.cumsum(tf.pad(self.bias, [[1, 0], [0, 0]])) * tf.transpose(self.kernel), axis=1
        )
        factor = tf.ones_like(products[..., 0])
        for layer in range(self.num_layers):
            factor += factor * products[..., layer] + of_bias[layer]
        return factor * products[..., -1] + of_bias[-1]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "num_layers": self.num_layers}
