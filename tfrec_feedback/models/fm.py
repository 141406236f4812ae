"""FM, NFM, DeepFM and AFM: factorization machines, alone and with networks on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import (
    FieldPairs,
    LinearTerm,
    PairAttention,
    ResumableDropout,
    SplitMLP,
    request_bi_interaction,
)
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline
from tfrec_feedback.schema import Schema

_MOMENTUM = 0.9


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FM(Baseline):
    """Factorization machine: `w0 + sum_k w_k + sum_{i<j} v_i . v_j`.

    Shared by the candidates of a request: the sums over the user's fields.

    Args:
        schema: what a request holds.
        **options: see `Baseline`; `output_bias` does nothing, w0 is the bias.

    Reference: Rendle, 2010, Factorization Machines, ICDM.
    """

    learned_output = False

    def __init__(self, schema: Schema, **options: Any):
        super().__init__(schema, **options)
        self.remember_arguments(options)
        self.linear = LinearTerm(schema, [history.name for history in self.histories])

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        pairs = request_bi_interaction(self.user_fields(fields), fields.candidates)
        return self.task_logits(pairs, self.linear(encoded))


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class NFM(Baseline):
    """Neural factorization machine: dense layers over the Bi-Interaction vector.

    Shared by the candidates of a request: the sums over the user's fields.

    Args:
        schema: what a request holds.
        deep_units: widths of the layers.
        dropout: rate after the Bi-Interaction and after each layer.
        batch_normalization: normalises the Bi-Interaction over the batch's valid candidates.
        **options: see `Baseline`.

    Reference: He and Chua, 2017, Neural Factorization Machines, SIGIR.
    """

    def __init__(
        self,
        schema: Schema,
        deep_units: Sequence[int] = (64,),
        dropout: float = 0.0,
        batch_normalization: bool = True,
        **options: Any,
    ):
        super().__init__(schema, **options)
        given = {"deep_units": deep_units, "dropout": dropout}
        self.remember_arguments({**given, "batch_normalization": batch_normalization, **options})
        self.linear = LinearTerm(schema, [history.name for history in self.histories])
        # Keras' momentum of 0.99 would leave the averages near their start for hundreds of steps.
        self.normalization = (
            tf.keras.layers.BatchNormalization(momentum=_MOMENTUM, fused=False)
            if batch_normalization
            else None
        )
        self._dropout = ResumableDropout(dropout)
        self.deep = SplitMLP(deep_units, dropout=dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 2 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        pairs = request_bi_interaction(self.user_fields(fields), fields.candidates)
        if self.normalization is not None:
            pairs = self.normalization(pairs, mask=self.valid(encoded) > 0, training=training)
        pairs = self._dropout(pairs, training=training)
        # The pairs have met the candidate: nothing of the deep layers is the user's alone.
        hidden = self.deep((tf.zeros([tf.shape(pairs)[0], 0]), pairs), training=training)
        return self.task_logits(hidden, self.linear(encoded))


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DeepFM(Baseline):
    """Factorization machine and dense layers side by side, on the same embeddings.

    Shared by the candidates of a request: the sums over the user's fields, and their part of the
    first dense layer.

    Args:
        schema: what a request holds.
        deep_units: widths of the dense layers.
        dropout: rate after each of them.
        **options: see `Baseline`.

    Reference: Guo et al., 2017, DeepFM, IJCAI.
    """

    def __init__(
        self,
        schema: Schema,
        deep_units: Sequence[int] = (256, 128, 64),
        dropout: float = 0.0,
        **options: Any,
    ):
        super().__init__(schema, **options)
        self.remember_arguments({"deep_units": deep_units, "dropout": dropout, **options})
        self.linear = LinearTerm(schema, [history.name for history in self.histories])
        self.deep = SplitMLP(deep_units, dropout=dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        user = self.user_fields(fields)
        pairs = request_bi_interaction(user, fields.candidates)
        machine = self.linear(encoded) + tf.reduce_sum(pairs, axis=-1)
        inputs = side_by_side(user), side_by_side(fields.candidates)
        return self.task_logits(self.deep(inputs, training=training), machine)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class AFM(Baseline):
    """Attentional factorization machine: pairs of fields, weighted by what they are.

    Shared by the candidates of a request: the products of the user's own pairs of fields, and
    their part of the softmax over all pairs.

    Args:
        schema: what a request holds.
        attention_units: width of the attention network.
        dropout: rate on the attention's weights.
        **options: see `Baseline`.

    Reference: Xiao et al., 2017, Attentional Factorization Machines, IJCAI.
    """

    def __init__(
        self, schema: Schema, attention_units: int = 8, dropout: float = 0.0, **options: Any
    ):
        super().__init__(schema, **options)
        given = {"attention_units": attention_units, "dropout": dropout}
        self.remember_arguments({**given, **options})
        self.linear = LinearTerm(schema, [history.name for history in self.histories])
        self.pairs = FieldPairs()
        self.attention = PairAttention(attention_units, dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        pairs = self.pairs((self.user_fields(fields), fields.candidates))
        return self.task_logits(self.attention(pairs, training=training), self.linear(encoded))
