"""Wide & Deep's memory: one scalar for every combination of two features' values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.feature_encoding import Tensors
from tfrec_feedback.schema import Schema, SchemaError

_ODD = (0x9E3779B1, 0x85EBCA77)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class CrossedWeights(tf.keras.layers.Layer):
    """`sum w[hash(x_a, x_b)]` over pairs (a, b) of features: cross-product transformations.

    Every pair has its own buckets, in one stacked table; a step touches the rows of its batch
    alone. For multi-valued features the scalar is the mean over all combinations of their values.
    Pairs of context features cost once a request.

    Args:
        schema: what a request holds.
        crosses: pairs of names of context or candidate features.
        num_buckets: rows of each pair; different combinations may share one.

    Call arguments:
        encoded: output of `FeatureEncoder`.

    Returns:
        float tensor `[R, N]`; scores of padded candidates mean nothing.

    Raises:
        SchemaError: for a name that the schema does not have, or an item that is not a pair.

    Reference: Cheng et al., 2016, Wide & Deep Learning for Recommender Systems, section 3.1.
    """

    def __init__(
        self,
        schema: Schema,
        crosses: Sequence[Sequence[str]],
        num_buckets: int = 100_000,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_buckets < 1:
            raise ValueError(f"num_buckets must be positive, got {num_buckets}.")
        self.schema = schema
        self.crosses = [tuple(pair) for pair in crosses]
        self.num_buckets = num_buckets
        for pair in self.crosses:
            if len(pair) != 2:
                raise SchemaError(
                    f"A cross is a pair of features, for example ('user_id', 'item_tag'), got "
                    f"{pair!r}."
                )
            for name in pair:
                schema.feature(name)

    def build(self, input_shape: Any) -> None:
        """Creates the stacked scalars, and where each feature's slots stand."""
        self._slots: dict[str, tuple[str, int, int]] = {}
        groups = {"context": self.schema.context, "candidate": self.schema.candidate}
        for group, features in groups.items():
            start = 0
            for feature in features:
                self._slots[feature.name] = group, start, start + feature.max_values
                start += feature.max_values
        self.weights_of_crosses = self.add_weight(
            name="weights",
            shape=(len(self.crosses) * self.num_buckets, 1),
            initializer="zeros",
        )
        super().build(input_shape)

    def call(self, encoded: Tensors) -> tf.Tensor:
        """Adds up the scalars of every candidate's crosses."""
        total = tf.zeros_like(tf.cast(encoded["candidate_rows"][..., 0], tf.float32))
        for index, (first, second) in enumerate(self.crosses):
            scalars = self._cross(index, first, second, encoded)
            total += scalars if scalars.shape.rank == 2 else scalars[:, tf.newaxis]
        return total

    def _cross(self, index: int, first: str, second: str, encoded: Tensors) -> tf.Tensor:
        rows_a, weights_a = self._values(first, encoded)
        rows_b, weights_b = self._values(second, encoded)
        if rows_a.shape.rank != rows_b.shape.rank:  # One of the user, one of the candidate.
            if rows_a.shape.rank == 2:
                rows_a, weights_a = rows_a[:, tf.newaxis], weights_a[:, tf.newaxis]
            else:
                rows_b, weights_b = rows_b[:, tf.newaxis], weights_b[:, tf.newaxis]
        mixed = rows_a[..., tf.newaxis] * _ODD[0] + rows_b[..., tf.newaxis, :] * _ODD[1]
        # Low bits of a sum of products say little: fold the high ones in.
        mixed = tf.bitwise.bitwise_xor(mixed, mixed // 2**15)
        buckets = tf.math.floormod(mixed, self.num_buckets) + index * self.num_buckets
        weights = weights_a[..., tf.newaxis] * weights_b[..., tf.newaxis, :]
        scalars = tf.gather(self.weights_of_crosses, buckets)[..., 0]
        return tf.reduce_sum(scalars * weights, axis=[-2, -1])

    def _values(self, name: str, encoded: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        group, start, end = self._slots[name]
        rows = tf.cast(encoded[f"{group}_rows"][..., start:end], tf.int64)
        return rows, encoded[f"{group}_weights"][..., start:end]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "schema": self.schema.with_inline_vocabularies().to_dict(),
            "crosses": [list(pair) for pair in self.crosses],
            "num_buckets": self.num_buckets,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CrossedWeights:
        """Builds the layer from `get_config`'s output."""
        return cls(**{**config, "schema": Schema.from_dict(config["schema"])})
