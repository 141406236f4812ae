"""DIEN, the deep interest evolution network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import SplitMLP
from tfrec_feedback.layers.attentional_gru import AttentionalGRU
from tfrec_feedback.layers.interest_evolution import InterestEvolution, NextEventLoss
from tfrec_feedback.models.base import AUXILIARY, Tensors, empty_request, side_by_side
from tfrec_feedback.models.baseline import Baseline, events_of
from tfrec_feedback.models.user_memory_network import check_same_features
from tfrec_feedback.schema import Schema

NEGATIVES = ("unclick", "random")
_CLICK, _UNCLICK = "click", "unclick"
Events = dict[str, tf.RaggedTensor]


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DIEN(Baseline):
    """Deep Interest Evolution Network: interests are states of a GRU, and evolve by candidate.

    Every history has recurrences of its own. A GRU over the events gives the user's interest after
    each of them, once a request; an AUGRU over these interests, weighted by how much each has to
    do with the candidate, gives what the candidate is judged by. In training an auxiliary loss
    asks the interests of the click history to tell the next click from a negative event.

    Args:
        schema: what a request holds.
        units: width of all recurrences; default: that of a history's events, their fields side by
            side.
        auxiliary_weight: of the auxiliary loss; 0 leaves it out. Without a click history there is
            none.
        auxiliary_units: hidden widths of its network.
        auxiliary_activation: of its network; sigmoid as in the code of the authors.
        negatives: `"unclick"`: negatives are the user's own exposures without a click, where an
            unclick history is read; `"random"`: clicks of the batch's other requests, as always
            without unclick history. See `NextEventLoss`.
        deep_units: widths of the deep part.
        deep_activation: `"dice"`, or any of Keras.
        dropout: rate in the deep part.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Raises:
        ValueError: for unknown `negatives`, a negative weight, or units below 1.
        SchemaError: when negatives are unclicks that do not repeat the features of clicks.

    Reference: Zhou et al., 2019, Deep Interest Evolution Network for Click-Through Rate
        Prediction, AAAI.
    """

    def __init__(
        self,
        schema: Schema,
        units: int | None = None,
        auxiliary_weight: float = 1.0,
        auxiliary_units: Sequence[int] = (100, 50),
        auxiliary_activation: str = "sigmoid",
        negatives: str = "unclick",
        deep_units: Sequence[int] = (256, 128, 64),
        deep_activation: str = "relu",
        dropout: float = 0.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        _check_options(negatives, auxiliary_weight, units)
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        widths = {h.name: units or len(h.features) * self.embedding_dim for h in self.histories}
        self.extractions, self.evolutions = _recurrences(widths)
        self.deep = SplitMLP(deep_units, deep_activation, dropout)
        self.auxiliary_weight = auxiliary_weight
        self.has_auxiliary_loss = auxiliary_weight > 0 and _CLICK in widths
        self._own_negatives = negatives == _UNCLICK and _UNCLICK in widths
        self.next_event = None
        if self.has_auxiliary_loss:
            self.next_event = NextEventLoss(auxiliary_units, auxiliary_activation)
        if self.has_auxiliary_loss and self._own_negatives:
            why = "The auxiliary loss compares their events (or set negatives='random')"
            check_same_features(schema, (_CLICK, _UNCLICK), why)

    def call(
        self, features: Tensors, training: bool | None = None, return_auxiliary: bool = False
    ) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields, valid = self.embedding(encoded, training=training), self.valid(encoded)
        events = {history.name: events_of(fields, history) for history in self.histories}
        states: Events = {}
        interests = []
        for history in self.histories:
            name, target = history.name, self.target(fields, history)
            after_events = tf.squeeze(self.extractions[name]((events[name],)), axis=1)
            states[name] = events[name].with_flat_values(after_events)
            interests.append(self.evolutions[name]((target, states[name])))
        user, items = side_by_side(fields.context), side_by_side(fields.candidates)
        candidates = tf.concat([items, *interests], axis=-1)
        logits = self.task_logits(self.deep((user, candidates), mask=valid, training=training))
        if return_auxiliary:
            logits[AUXILIARY] = self._next_event_loss(states, events)
        return logits

    def _next_event_loss(self, states: Events, events: Events) -> tf.Tensor:
        if self.next_event is None:
            raise ValueError(
                "return_auxiliary needs a model with an auxiliary loss: one that reads a click "
                "history, with auxiliary_weight above 0."
            )
        rejected = (events[_UNCLICK],) if self._own_negatives else ()
        return self.next_event((states[_CLICK], events[_CLICK], *rejected))

    def auxiliary_loss(self, auxiliary: Any, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns the weighted loss of a batch; parts of one weigh as their candidates do."""
        return self.auxiliary_weight * auxiliary * tf.reduce_sum(share)

    def build_weights(self) -> None:
        """Creates all weights, those of the auxiliary loss included."""
        options = {"return_auxiliary": True} if self.has_auxiliary_loss else {}
        self(empty_request(self.schema), **options)


def _check_options(negatives: str, auxiliary_weight: float, units: int | None) -> None:
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives must be one of {list(NEGATIVES)}, got {negatives!r}.")
    if auxiliary_weight < 0:
        raise ValueError(f"auxiliary_weight must not be negative, got {auxiliary_weight}.")
    if units is not None and units < 1:
        raise ValueError(f"units must be at least 1 or None, got {units}.")


def _recurrences(
    widths: dict[str, int],
) -> tuple[dict[str, AttentionalGRU], dict[str, InterestEvolution]]:
    """Returns a GRU and an AUGRU for every history, of the given widths."""
    extractions = {
        name: AttentionalGRU(width, return_states=True, name=f"{name}_interests")
        for name, width in widths.items()
    }
    evolutions = {
        name: InterestEvolution(width, name=f"{name}_evolution") for name, width in widths.items()
    }
    return extractions, evolutions
