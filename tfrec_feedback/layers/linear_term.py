"""The linear term of the click models: a bias and one scalar a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.feature_embedding import WideWeights
from tfrec_feedback.layers.feature_encoding import Tensors
from tfrec_feedback.schema import Schema


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class LinearTerm(tf.keras.layers.Layer):
    """`w0 + sum_k w_k[x_k]` over the fields of context, candidate and histories.

    A feature of a history is one multi-valued field, whose scalar is the mean over its events. The
    user's share of the sum is computed once a request.

    Args:
        schema: what a request holds.
        histories: names of the histories that count as fields.

    Call arguments:
        encoded: output of `FeatureEncoder`; padded events and values have weight 0, and scores of
            padded candidates mean nothing.

    Returns:
        float tensor `[R, N]`.

    Reference: Rendle, 2010, Factorization Machines, eq. 1, the first two terms.
    """

    def __init__(self, schema: Schema, histories: Sequence[str] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.schema = schema
        self.histories = list(histories)
        self.scalars = WideWeights(schema, use_bias=False, histories=self.histories)

    def build(self, input_shape: Any) -> None:
        """Creates the bias."""
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")
        super().build(input_shape)

    def call(self, encoded: Tensors) -> tf.Tensor:
        """Returns the linear term of every candidate."""
        user, candidates = self.scalars(encoded)
        shared = tf.reduce_sum(user, axis=1, keepdims=True) + self.bias
        return shared + tf.reduce_sum(candidates, axis=2)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        schema = self.schema.with_inline_vocabularies().to_dict()
        return {**super().get_config(), "schema": schema, "histories": self.histories}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LinearTerm:
        """Builds the layer from `get_config`'s output."""
        return cls(**{**config, "schema": Schema.from_dict(config["schema"])})
