"""Dropout that an interrupted training run can resume exactly."""

from __future__ import annotations

import random
from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class ResumableDropout(tf.keras.layers.Layer):
    """Dropout whose random numbers are a function of a seed and of a counted call.

    Keras' dropout keeps its state inside the operation, where no checkpoint reaches it: a resumed
    run drops other units than an uninterrupted one. Here the state is one integer weight.

    Args:
        rate: share of the values that is dropped while training, in [0, 1).
        seed: default: drawn from Python's `random`, which `tf.keras.utils.set_random_seed` seeds.

    Call arguments:
        inputs: float tensor of any shape.
        training: whether to drop.

    Returns:
        `inputs`, or in training `inputs / (1 - rate)` with dropped values 0.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must be in [0, 1), got {rate}.")
        self.rate = rate
        self.seed = random.randrange(2**31) if seed is None else seed

    def build(self, input_shape: Any) -> None:
        """Creates the counter."""
        if self.rate:
            # Replicas count alike: without an aggregation they could not count at all.
            self.calls = self.add_weight(
                name="calls",
                shape=(),
                dtype=tf.int64,
                initializer="zeros",
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Drops values in training."""
        if not self.rate or not training:
            return inputs
        seed = tf.stack([tf.constant(self.seed, tf.int64), self.calls])
        self.calls.assign_add(1)
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
