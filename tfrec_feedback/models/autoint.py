"""AutoInt, alone and with a user memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import InteractingLayer, ragged_mean
from tfrec_feedback.models.base import INTERESTS, Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline
from tfrec_feedback.models.user_memory_network import (
    UserInterests,
    make_user_memory,
    sampled_items,
)
from tfrec_feedback.schema import Schema


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class AutoInt(Baseline):
    """AutoInt: rounds of self-attention among all fields of a candidate and his user.

    With `user_memory` (AutoInt+UMN) every history's mean is a short-term interest that reads a
    memory, and what is read becomes one more field, projected to the fields' width.

    Shared by the candidates of a request: of the first round all that the user's fields decide
    alone (see `InteractingLayer`), and the memories' reads, which no candidate touches.

    Args:
        schema: what a request holds.
        num_layers: rounds.
        attention_units: width of a head.
        num_heads: heads.
        use_residual: whether fields are added to what they attend to.
        user_memory: options of a `UserMemoryNetwork`; None has no memory.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Reference: Song et al., 2019, AutoInt, CIKM; the plug-in: Bian et al., 2021 (DUMN), section 4.4.
    """

    def __init__(
        self,
        schema: Schema,
        num_layers: int = 3,
        attention_units: int = 16,
        num_heads: int = 2,
        use_residual: bool = True,
        user_memory: Mapping[str, Any] | None = None,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}.")
        self.rounds = [
            InteractingLayer(attention_units, num_heads, use_residual) for _ in range(num_layers)
        ]
        if user_memory is not None:
            names = [history.name for history in self.histories]
            self.user_memory = make_user_memory(schema, names, self.embedding_dim, user_memory)
            self.embedding = self.make_embedding(self.user_memory.sampled)
            self.memory_projections = {
                name: tf.keras.layers.Dense(
                    self.embedding_dim, use_bias=False, name=f"{name}_memory_projection"
                )
                for name in names
            }

    def call(
        self, features: Tensors, training: bool | None = None, return_interests: bool = False
    ) -> Tensors:
        """Scores every candidate of every request; reads as figure 2 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        short_term = {
            name: side_by_side(ragged_mean(events))[:, tf.newaxis]
            for name, events in fields.histories.items()
        }
        long_term, access = self.long_term(short_term, fields.context, return_interests)
        reads = [self.memory_projections[name](read) for name, read in long_term.items()]
        user = tf.concat([self.user_fields(fields), *reads], axis=1)
        vectors: Any = (user, fields.candidates)
        for attention in self.rounds:
            vectors = attention(vectors)
        outputs = self.task_logits(side_by_side(vectors))
        if return_interests:
            samples = sampled_items(self.schema, fields.samples, encoded)
            outputs[INTERESTS] = UserInterests(short_term, short_term, access, samples)
        return outputs
