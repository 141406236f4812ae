"""Wide & Deep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import CrossedWeights, LinearTerm, SplitMLP
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline
from tfrec_feedback.schema import Schema


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class WideDeep(Baseline):
    """Wide & Deep: a linear model that memorises, dense layers that generalise.

    Shared by the candidates of a request: the user's linear terms and crosses, and the part of
    the first dense layer that reads his fields.

    Args:
        schema: what a request holds.
        crosses: pairs of features whose combinations are memorised, see `CrossedWeights`. Which
            is a matter of the log: none by default.
        cross_buckets: rows of each pair.
        deep_units: widths of the dense layers.
        dropout: rate after each of them.
        **options: see `Baseline`.

    Reference: Cheng et al., 2016, Wide & Deep Learning for Recommender Systems, DLRS. There the
    wide part learns by FTRL and the deep part by AdaGrad; here one optimiser serves both.
    """

    def __init__(
        self,
        schema: Schema,
        crosses: Sequence[Sequence[str]] = (),
        cross_buckets: int = 100_000,
        deep_units: Sequence[int] = (256, 128, 64),
        dropout: float = 0.0,
        **options: Any,
    ):
        super().__init__(schema, **options)
        self.remember_arguments(
            {
                "crosses": [list(pair) for pair in crosses],
                "cross_buckets": cross_buckets,
                "deep_units": deep_units,
                "dropout": dropout,
                **options,
            }
        )
        self.linear = LinearTerm(schema, [history.name for history in self.histories])
        self.crosses = CrossedWeights(schema, crosses, cross_buckets) if crosses else None
        self.deep = SplitMLP(deep_units, dropout=dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        wide = self.linear(encoded)
        if self.crosses is not None:
            wide += self.crosses(encoded)
        user = side_by_side(self.user_fields(fields))
        inputs = user, side_by_side(fields.candidates)
        return self.task_logits(self.deep(inputs, training=training), wide)
