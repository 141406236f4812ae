"""DMT, deep multifaceted transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import EmbeddedRequest, SplitMLP
from tfrec_feedback.layers.interest_transformer import InterestTransformer
from tfrec_feedback.layers.mixture_of_experts import MixtureOfExperts
from tfrec_feedback.layers.widths import check_widths
from tfrec_feedback.models.base import AUXILIARY, Tensors, empty_request, side_by_side
from tfrec_feedback.models.baseline import Baseline, events_of
from tfrec_feedback.schema import Schema, SchemaError


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DMT(Baseline):
    """Deep Multifaceted Transformers: a transformer a history, experts that the tasks share.

    Every history is read for the candidate by a transformer of its own. User, item and interests
    enter a mixture of experts; every task that has an output of its own (the click, and with
    `dislike_head` the dislike) has a gate and a tower.

    What says where and beside what an item was shown explains clicks without saying what the user
    wants. Features named in `bias_features` therefore enter a bias tower alone. Its logit b joins
    the logits s in training, which descends CE(s + b) + CE(s); what is served is s. Requests to a
    server still hold these features, with any value.

    Shared by the candidates of a request: the encoders, the decoders' keys and values, and the
    user's part of experts, gates and bias tower.

    Args:
        schema: what a request holds.
        num_heads: heads of the transformers; divides the width of an event, which is
            `embedding_dim` times its features.
        ffn_multiplier: hidden units of the transformers' networks, in widths of an event.
        expert_units: widths of an expert.
        num_experts: how many experts there are.
        tower_units: widths of a tower before its output.
        bias_features: context or candidate features of the bias tower; none: there is no tower.
        bias_units: widths of the bias tower before its output.
        dropout: rate after the layers of the experts.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Raises:
        SchemaError: for a bias feature that is unknown, describes the events of a history, or
            leaves no other candidate feature.
        ValueError: for `num_heads` that do not divide the width of an event, or a width below 1.

    Example:
        >>> from tfrec_feedback.models.base import empty_request
        >>> from tfrec_feedback.schema import Feature, FeedbackSequence, Identity
        >>> schema = Schema(
        ...     context=(Feature("hour", Identity(24)),),
        ...     candidate=(Feature("item_id", Identity(100)), Feature("position", Identity(20))),
        ...     histories=(FeedbackSequence("click", ("item_id",)),),
        ... )
        >>> model = DMT(schema, expert_units=(32, 16), bias_features=("position",))
        >>> model.build_weights()
        >>> sorted(model(empty_request(schema)))
        ['ctr', 'dislike']

    Reference: Gu et al., 2020, Deep Multifaceted Transformers for Multi-objective Ranking in
    Large-Scale E-commerce Recommender Systems, CIKM.
    """

    def __init__(
        self,
        schema: Schema,
        num_heads: int = 4,
        ffn_multiplier: int = 4,
        expert_units: Sequence[int] = (512, 256, 128),
        num_experts: int = 4,
        tower_units: Sequence[int] = (32,),
        bias_features: Sequence[str] = (),
        bias_units: Sequence[int] = (32, 16),
        dropout: float = 0.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        if tower_units:
            check_widths("tower_units", tower_units, (32,))
        self.bias_features = tuple(bias_features)
        self._check_bias_features()
        self.has_auxiliary_loss = bool(bias_features)
        self.transformers = {
            history.name: InterestTransformer(
                num_heads, history.max_length, ffn_multiplier, name=f"{history.name}_transformer"
            )
            for history in self.histories
        }
        tasks = ("ctr",) if self._dislike_output is None else ("ctr", "dislike")
        self.experts = MixtureOfExperts(expert_units, num_experts, len(tasks), dropout=dropout)
        self.towers = {
            task: [tf.keras.layers.Dense(width, "relu") for width in tower_units] for task in tasks
        }
        if bias_features:
            self.bias_tower = SplitMLP(bias_units, name="bias_tower")
            self.bias_output = tf.keras.layers.Dense(1, name="bias_output")

    def _check_bias_features(self) -> None:
        for name in self.bias_features:
            self.schema.feature(name)
            for history in self.histories:
                if name in history.features:
                    raise SchemaError(
                        f"bias_features names {name!r}, which describes the events of history "
                        f"{history.name!r}: expected features that enter the bias tower alone. "
                        "Give the schema a feature of its own for the bias (it may share the "
                        "table)."
                    )
        if {feature.name for feature in self.schema.candidate} <= set(self.bias_features):
            raise SchemaError(
                "bias_features names every candidate feature: nothing is left to score items by."
            )

    def call(
        self, features: Tensors, training: bool | None = None, return_auxiliary: bool = False
    ) -> Tensors:
        """Scores every candidate of every request; reads as the paper's figure from the bottom."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        interests = [
            self.transformers[history.name](
                (self.target(fields, history), events_of(fields, history))
            )
            for history in self.histories
        ]
        user, items = self._split(fields, of_bias=False)
        candidates = tf.concat([items, *interests], axis=-1)
        mixtures = self.experts((user, candidates), training=training)
        hidden = tf.stack(
            [self._tower(task, mixtures[:, :, i]) for i, task in enumerate(self.towers)], axis=2
        )
        outputs = self.task_logits(hidden)
        if return_auxiliary:
            bias = self.bias_output(self.bias_tower(self._split(fields, of_bias=True)))
            outputs[AUXILIARY] = self.task_logits(hidden, tf.squeeze(bias, -1))
        return outputs

    def task_logits(self, representation: tf.Tensor, offset: tf.Tensor | None = None) -> Tensors:
        """Turns the towers' last hidden layers into task logits.

        Args:
            representation: float tensor `[R, N, towers, D]`.
            offset: what is added to the logit of every tower, `[R, N]`.
        """
        more = 0.0 if offset is None else offset
        output = tf.squeeze(self._click_output(representation[:, :, 0]), -1)
        logits = self.signed_logits(output + more)
        if self._dislike_output is not None:
            output = tf.squeeze(self._dislike_output(representation[:, :, 1]), -1)
            logits["dislike"] = output + more
        return logits

    def auxiliary_loss(self, auxiliary: Any, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns CE(s + b): the losses of all tasks, of the logits with the bias."""
        return self.task_loss(auxiliary, labels, share)

    def build_weights(self) -> None:
        """Creates all weights, those of the bias tower included, which no server calls."""
        if not self.has_auxiliary_loss:
            return super().build_weights()
        self(empty_request(self.schema), return_auxiliary=True)

    def _tower(self, task: str, hidden: tf.Tensor) -> tf.Tensor:
        for layer in self.towers[task]:
            hidden = layer(hidden)
        return hidden

    def _split(self, fields: EmbeddedRequest, of_bias: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns fields of user and items side by side, `[R, C]` and `[R, N, K]`.

        Args:
            fields: of the batch.
            of_bias: the bias features, or all the others.
        """
        parts = []
        for used, vectors in (
            (self.schema.context, fields.context),
            (self.schema.candidate, fields.candidates),
        ):
            chosen = [i for i, f in enumerate(used) if (f.name in self.bias_features) == of_bias]
            columns = tf.constant(chosen, tf.int32, shape=[len(chosen)])
            parts.append(side_by_side(tf.gather(vectors, columns, axis=-2)))
        return parts[0], parts[1]
