"""DSIN, the deep session interest network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import ActivationUnit, SplitMLP
from tfrec_feedback.layers.session_interest import SessionInterest
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline, events_of
from tfrec_feedback.schema import Schema, SchemaError


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DSIN(Baseline):
    """Deep Session Interest Network: what a user wanted in each session, and how that evolved.

    Every history with sessions goes through a `SessionInterest` of its own. Two activation units
    then weigh its sessions for each candidate, by softmax: one the interests of the sessions, the
    other those in sequence. Histories without sessions enter as the mean of their events.

    All of the session encoding (self-attention and LSTM) is computed once a request and shared by
    its candidates, like the user's part of the deep layers.

    Args:
        schema: what a request holds; one history at least has `num_sessions`.
        session_length: at most so many of a session's most recent events take part.
        num_heads: of the self-attention; must divide the width of an event.
        min_session_events: sessions with fewer events are left out. The authors' code asks for
            3; where histories are short, that would leave next to nothing of them.
        attention_units: hidden widths of the activation units. They stand, as in the authors'
            code, where the paper prints a bilinear score.
        attention_activation: `"dice"`, or any of Keras.
        deep_units: widths of the deep part.
        deep_activation: `"dice"`, or any of Keras.
        dropout: rate in the deep part.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Raises:
        SchemaError: when no history has sessions.

    Reference: Feng et al., 2019, Deep Session Interest Network for Click-Through Rate Prediction,
    IJCAI.
    """

    reads_sessions = True

    def __init__(
        self,
        schema: Schema,
        session_length: int = 10,
        num_heads: int = 8,
        min_session_events: int = 1,
        attention_units: Sequence[int] = (64, 16),
        attention_activation: str = "sigmoid",
        deep_units: Sequence[int] = (200, 80),
        deep_activation: str = "relu",
        dropout: float = 0.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        with_sessions = tuple(h for h in self.histories if h.num_sessions)
        if not with_sessions:
            raise SchemaError(
                "DSIN reads the sessions of histories, and none of "
                f"{[h.name for h in self.histories]} has any. Prepare them with `--sessions 5`."
            )
        self.with_sessions = with_sessions
        self.pooled = [h.name for h in self.histories if not h.num_sessions]
        self.sessions = {
            h.name: SessionInterest(
                h.num_sessions,
                session_length,
                num_heads,
                min_session_events,
                name=f"{h.name}_session_interest",
            )
            for h in with_sessions
        }
        self.units = {
            f"{h.name}_{what}": ActivationUnit(
                attention_units, attention_activation, softmax=True, name=f"{h.name}_{what}_unit"
            )
            for h in with_sessions
            for what in ("interest", "evolution")
        }
        self.deep = SplitMLP(deep_units, deep_activation, dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 2 of the paper."""
        encoded = self.encode(features)
        fields, valid = self.embedding(encoded, training=training), self.valid(encoded)
        read: list[tf.Tensor] = []
        for history in self.with_sessions:
            name, target = history.name, self.target(fields, history)
            events = (events_of(fields, history), encoded[history.session])
            interests, evolved = self.sessions[name](events)
            for what, rows in (("interest", interests), ("evolution", evolved)):
                unit = self.units[f"{name}_{what}"]
                read.append(unit((target, rows), mask=valid, training=training))
        user = side_by_side(self.user_fields(fields, self.pooled))
        candidates = tf.concat([side_by_side(fields.candidates), *read], axis=-1)
        return self.task_logits(self.deep((user, candidates), mask=valid, training=training))
