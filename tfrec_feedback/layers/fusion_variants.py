"""Other fusions of short-term and long-term preference, to compare `GatedFusion` with.

All are called with a short-term preference f `[..., E]` and a long-term preference r `[..., Z]` of
equal leading axes, and use no masks.

Reference: Bian et al., 2021 (DUMN), the comparison of fusions in the ablation study; it gives no
formulas, so widths, and biases in the ReLU layers alone, are choices made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.gated_fusion import GatedFusion
from tfrec_feedback.layers.square_dense import SquareDense


def _as_tensor(long_term: tf.Tensor | None, short_term: tf.Tensor) -> tf.Tensor:
    """Returns the long-term preference as a tensor, refusing its absence."""
    if long_term is None:
        raise ValueError(
            "Expected a long-term preference, got None: without a memory there is nothing to fuse. "
            "Use GatedFusion, which does without."
        )
    return tf.convert_to_tensor(long_term, short_term.dtype)


class _ProjectionOnto(tf.keras.layers.Layer):
    """`x P` with the width of another tensor: `(x [..., E], like [..., Z])` to `[..., Z]`."""

    def build(self, input_shape: Any) -> None:
        """Creates P, `[E, Z]`."""
        shape = tuple(int(tf.TensorShape(shape)[-1]) for shape in input_shape)
        self.kernel = self.add_weight(name="kernel", shape=shape)
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the projection; see the class."""
        return tf.tensordot(inputs[0], self.kernel, 1)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class ConcatFusion(tf.keras.layers.Layer):
    """`fused = concat(f, r)`.

    Call arguments:
        short_term: f, float tensor `[..., E]`.
        long_term: r, float tensor `[..., Z]`.

    Returns:
        float tensor `[..., E + Z]`.

    Raises:
        ValueError: without long-term preference.

    Example:
        >>> ConcatFusion()(tf.constant([1.0]), tf.constant([2.0, 3.0])).numpy()
        array([1., 2., 3.], dtype=float32)
    """

    def call(self, short_term: tf.Tensor, long_term: tf.Tensor) -> tf.Tensor:
        """Returns both side by side; see the class."""
        return tf.concat([short_term, _as_tensor(long_term, short_term)], axis=-1)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class CrossFusion(tf.keras.layers.Layer):
    """`fused = concat(f' + r, f' - r, f' * r)` with `f' = f P`, P `[E, Z]`.

    Call arguments:
        short_term: f, float tensor `[..., E]`.
        long_term: r, float tensor `[..., Z]`.

    Returns:
        float tensor `[..., 3 Z]`.

    Raises:
        ValueError: without long-term preference.

    Example:
        >>> CrossFusion()(tf.ones([2, 3, 4]), tf.ones([2, 3, 6])).shape
        TensorShape([2, 3, 18])
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._projection = _ProjectionOnto(name="projection")

    def call(self, short_term: tf.Tensor, long_term: tf.Tensor) -> tf.Tensor:
        """Returns sum, difference and product; see the class."""
        long_term = _as_tensor(long_term, short_term)
        projected = self._projection((short_term, long_term))
        return tf.concat(
            [projected + long_term, projected - long_term, projected * long_term], axis=-1
        )


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FFNFusion(tf.keras.layers.Layer):
    """`fused = concat(relu(f W1 + b1), relu(r W2 + b2))`, W1 `[E, E]` and W2 `[Z, Z]`.

    Call arguments:
        short_term: f, float tensor `[..., E]`.
        long_term: r, float tensor `[..., Z]`.

    Returns:
        float tensor `[..., E + Z]`.

    Raises:
        ValueError: without long-term preference.

    Example:
        >>> FFNFusion()(tf.ones([2, 3, 4]), tf.ones([2, 3, 6])).shape
        TensorShape([2, 3, 10])
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._of_short_term = SquareDense("relu", name="of_short_term")
        self._of_long_term = SquareDense("relu", name="of_long_term")

    def call(self, short_term: tf.Tensor, long_term: tf.Tensor) -> tf.Tensor:
        """Returns one hidden layer of each; see the class."""
        long_term = _as_tensor(long_term, short_term)
        return tf.concat([self._of_short_term(short_term), self._of_long_term(long_term)], axis=-1)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class AttentionFusion(tf.keras.layers.Layer):
    """Additive attention over two tokens, the projected short-term and the long-term preference.

        f' = f P
        (a, b) = softmax(v . tanh(f' W), v . tanh(r W))
        fused = a f' + b r

    with P `[E, Z]`, W `[Z, Z]` and v `[Z]`, no biases.

    Call arguments:
        short_term: f, float tensor `[..., E]`.
        long_term: r, float tensor `[..., Z]`.

    Returns:
        float tensor `[..., Z]`.

    Raises:
        ValueError: without long-term preference.

    Example:
        >>> AttentionFusion()(tf.ones([2, 3, 4]), tf.ones([2, 3, 6])).shape
        TensorShape([2, 3, 6])
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._projection = _ProjectionOnto(name="projection")
        self._hidden = SquareDense("tanh", use_bias=False, name="hidden")
        self._score = tf.keras.layers.Dense(1, use_bias=False, name="score")

    def call(self, short_term: tf.Tensor, long_term: tf.Tensor) -> tf.Tensor:
        """Returns the weighted sum of both tokens; see the class."""
        long_term = _as_tensor(long_term, short_term)
        tokens = tf.stack([self._projection((short_term, long_term)), long_term], axis=-2)
        weights = tf.nn.softmax(self._score(self._hidden(tokens)), axis=-2)  # [..., 2, 1]
        return tf.reduce_sum(weights * tokens, axis=-2)


FUSIONS = {
    "gate": GatedFusion,
    "concat": ConcatFusion,
    "cross": CrossFusion,
    "ffn": FFNFusion,
    "attention": AttentionFusion,
}
"""The fusions by the name that configurations give them."""
