"""Dice, DIN's data-adaptive activation, and activations by name."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.products import batched_product

EPSILON = 1e-9
"""Added to variances."""


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class Dice(tf.keras.layers.Layer):
    """`f(s) = p(s) s + (1 - p(s)) alpha s` with `p(s) = sigmoid((s - mean) / sqrt(variance))`.

    A PReLU whose bend lies where the data are. In training mean and variance are those of the
    batch's valid rows, and move the averages that are used everywhere else. The first batch sets
    the averages, and later ones move them by their share of what was seen, at least 1 - momentum:
    averages that start elsewhere would be wrong for hundreds of steps. Under a `tf.distribute`
    strategy every replica uses its own rows; the averages are the replicas' mean.

    Args:
        momentum: of the moving averages.

    Call arguments:
        inputs: `(s, mask)`: float tensors `[..., D]` and `[...]`, 1 where valid; mask may be None.
        training: whether the batch's own statistics are used, and the averages moved.

    Returns:
        float tensor `[..., D]`; what stands at padded rows means nothing: let nothing read it.

    Reference: Zhou et al., 2018 (DIN), eq. 3.
    """

    def __init__(self, momentum: float = 0.99, **kwargs: Any):
        super().__init__(**kwargs)
        self.momentum = momentum

    def build(self, input_shape: Any) -> None:
        """Creates alpha, initially 0 (a smooth gate), and the moving averages."""
        width = int(tf.TensorShape(input_shape[0])[-1])
        self.alpha = self.add_weight(name="alpha", shape=(width,), initializer="zeros")
        averages = {"trainable": False, "aggregation": tf.VariableAggregation.MEAN}
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=(width,), initializer="zeros", **averages
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=(width,), initializer="ones", **averages
        )
        # 1 - momentum^t after t batches: how much of a plain moving average would be data.
        self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", **averages)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Returns the activation of every position."""
        s, mask = inputs
        if not training:
            scale = tf.math.rsqrt(self.moving_variance + EPSILON)
            p = tf.sigmoid((s - self.moving_mean) * scale)
            return s * (self.alpha + (1.0 - self.alpha) * p)
        rows = tf.reshape(s, [-1, s.shape[-1]])
        shares = _shares(rows, mask)
        activated, mean, variance = batch_dice(rows, self.alpha, shares)
        self.move_averages(mean, variance, tf.reduce_sum(shares))
        return tf.reshape(activated, tf.shape(s))

    def move_averages(self, mean: tf.Tensor, variance: tf.Tensor, any_valid: tf.Tensor) -> None:
        """Moves the averages by the statistics of a batch.

        Args:
            mean: `[D]`.
            variance: `[D]`.
            any_valid: scalar, 1, or 0 for a batch without any valid row: that moves nothing.
        """
        pace = (1.0 - self.momentum) * any_valid
        seen = self.seen + pace * (1.0 - self.seen)
        step = tf.math.divide_no_nan(pace, tf.maximum(seen, pace))
        self.moving_mean.assign_add(step * (mean - self.moving_mean))
        self.moving_variance.assign_add(step * (variance - self.moving_variance))
        self.seen.assign(seen)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "momentum": self.momentum}


def _shares(rows: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Weight of every row in the batch's mean, `[1, P]`: they sum to 1, or to 0 without any."""
    if mask is None:
        mask = tf.ones(tf.shape(rows)[:1])
    mask = tf.reshape(mask, [1, -1])
    return mask / tf.maximum(tf.reduce_sum(mask), 1.0)


@tf.custom_gradient
def batch_dice(s: tf.Tensor, alpha: tf.Tensor, shares: tf.Tensor) -> Any:
    """Dice by the statistics of a batch, with the gradient through them written out.

    Sums over rows are products with `shares`, several times faster here than reductions, and the
    gradient makes half as many passes over `[P, D]` as the one TensorFlow derives.

    Args:
        s: float tensor `[P, D]`.
        alpha: `[D]`.
        shares: `[1, P]`, weight of every row in mean and variance.

    Returns:
        The activation `[P, D]`, and mean and variance `[D]`, which carry no gradient.
    """
    mean = batched_product(shares, s)
    centred = s - mean
    variance = batched_product(shares, tf.square(centred))
    scale = tf.math.rsqrt(variance + EPSILON)
    p = tf.sigmoid(centred * scale)
    gate = alpha + (1.0 - alpha) * p

    def gradient(upstream: tf.Tensor, _mean: tf.Tensor, _variance: tf.Tensor) -> Any:
        ones = tf.ones_like(shares)
        weighted = upstream * s
        passed = weighted * p
        of_alpha = batched_product(ones, weighted) - batched_product(ones, passed)
        # By the normalised s, short of the factor 1 - alpha, which is a column's own.
        of_normal = passed - passed * p
        # Mean and variance depend on every row, by its share.
        level = batched_product(ones, of_normal)
        slope = batched_product(ones, of_normal * centred) * tf.square(scale)
        through = of_normal - tf.transpose(shares) * (level + centred * slope)
        of_s = upstream * gate + through * (scale * (1.0 - alpha))
        return of_s, of_alpha[0], None

    return (s * gate, mean[0], variance[0]), gradient


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class Activation(tf.keras.layers.Layer):
    """An activation by name: `"dice"`, or any of Keras.

    Args:
        function: `"dice"`, or what `tf.keras.activations.get` takes.

    Call arguments:
        inputs: `(x, mask)`, as of `Dice`; only Dice reads the mask.
        training: as of `Dice`.
    """

    def __init__(self, function: Any = "relu", **kwargs: Any):
        super().__init__(**kwargs)
        self.dice = Dice() if function == "dice" else None
        self.function = tf.keras.activations.get(None if self.dice else function)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Returns the activation of every position."""
        if self.dice is not None:
            return self.dice(inputs, training=training)
        return self.function(inputs[0])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        name = "dice" if self.dice else tf.keras.activations.serialize(self.function)
        return {**super().get_config(), "function": name}
