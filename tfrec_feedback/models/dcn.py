"""DCN, the deep and cross network, in vector (v1) and matrix (v2) form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrec_feedback.layers import SplitMLP, VectorCrossNetwork
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline
from tfrec_feedback.schema import Schema

CROSSES = ("vector", "matrix")


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DCN(Baseline):
    """Deep & Cross Network: explicit feature crosses of growing degree beside dense layers.

    Shared by the candidates of a request: in vector form all that the cross network reads of the
    user (see `VectorCrossNetwork`), and in both forms his part of the first dense layer. In matrix
    form every cross layer mixes user and candidate, so nothing of it can be shared.

    Args:
        schema: what a request holds.
        cross: `"vector"`, `x_0 (x_l . w) + b + x_l` (v1), or `"matrix"`, `x_0 * (W x_l + b) + x_l`
            (v2, `tfrs.layers.dcn.Cross`).
        num_cross_layers: layers of the cross network.
        projection_dim: rank of W in matrix form; None for a full matrix.
        deep_units: widths of the dense layers.
        dropout: rate after each of them.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Raises:
        ValueError: for wrong options.

    Reference: Wang et al., 2017, Deep & Cross Network for Ad Click Predictions, ADKDD;
    Wang et al., 2021, DCN V2, WWW.
    """

    def __init__(
        self,
        schema: Schema,
        cross: str = "vector",
        num_cross_layers: int = 2,
        projection_dim: int | None = None,
        deep_units: Sequence[int] = (256, 128, 64),
        dropout: float = 0.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        if cross not in CROSSES:
            raise ValueError(f"cross must be one of {list(CROSSES)}, got {cross!r}.")
        if projection_dim is not None and cross == "vector":
            raise ValueError("projection_dim is the rank of a matrix: set cross='matrix' too.")
        if num_cross_layers < 1:
            raise ValueError(f"num_cross_layers must be at least 1, got {num_cross_layers}.")
        if projection_dim is not None and projection_dim < 1:
            raise ValueError(f"projection_dim must be at least 1 or None, got {projection_dim}.")
        self.vector_cross = VectorCrossNetwork(num_cross_layers) if cross == "vector" else None
        self.matrix_crosses = []
        if cross == "matrix":
            self.matrix_crosses = [
                tfrs.layers.dcn.Cross(projection_dim) for _ in range(num_cross_layers)
            ]
        self.deep = SplitMLP(deep_units, dropout=dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        user, items = side_by_side(self.user_fields(fields)), side_by_side(fields.candidates)
        deep = self.deep((user, items), training=training)
        if self.vector_cross is not None:
            return self.task_logits(deep, self.vector_cross((user, items)))
        first = tf.concat([tf.repeat(user[:, tf.newaxis], tf.shape(items)[1], 1), items], axis=-1)
        crossed = first
        for layer in self.matrix_crosses:
            crossed = layer(first, crossed)
        return self.task_logits(tf.concat([crossed, deep], axis=-1))
