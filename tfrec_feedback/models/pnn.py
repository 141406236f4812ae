"""PNN, the product-based neural network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import InnerProducts, OuterProducts, SplitMLP
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline
from tfrec_feedback.schema import Schema

PRODUCTS = ("inner", "outer")


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class PNN(Baseline):
    """Product-based network: dense layers over the fields and the products of their pairs.

    Shared by the candidates of a request: inner products among the user's own fields, and the
    part of the first dense layer that reads those and the user's fields.

    Args:
        schema: what a request holds.
        products: `"inner"`, `"outer"` or both.
        outer: form of the outer products, see `OuterProducts`.
        deep_units: widths of the dense layers.
        dropout: rate after each of them.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Reference: Qu et al., 2016, Product-based Neural Networks for User Response Prediction, ICDM.
    """

    def __init__(
        self,
        schema: Schema,
        products: Sequence[str] = PRODUCTS,
        outer: str = "superposition",
        deep_units: Sequence[int] = (256, 128, 64),
        dropout: float = 0.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        if not products or set(products) - set(PRODUCTS):
            raise ValueError(f"products must be some of {list(PRODUCTS)}, got {list(products)}.")
        known = {"inner": InnerProducts, "outer": lambda: OuterProducts(outer)}
        self.products = [known[name]() for name in products]
        self.deep = SplitMLP(deep_units, dropout=dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        user, candidates = self.user_fields(fields), fields.candidates
        parts = [(side_by_side(user), side_by_side(candidates))]
        parts += [layer((user, candidates)) for layer in self.products]
        inputs = tuple(tf.concat(group, axis=-1) for group in zip(*parts, strict=True))
        return self.task_logits(self.deep(inputs, training=training))
