"""DUMN, the denoising user-aware memory network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import (
    FUSIONS,
    FeatureEmbedding,
    FeaturePurification,
    MultiHeadInteractionAttention,
    ResumableDropout,
    SplitDense,
)
from tfrec_feedback.layers.widths import check_widths
from tfrec_feedback.models.base import INTERESTS, FeedbackModel, Tensors, side_by_side
from tfrec_feedback.models.user_memory_network import (
    UserInterests,
    check_same_features,
    make_user_memory,
    sampled_items,
)
from tfrec_feedback.schema import Schema, SchemaError

_PURIFIED = {"click": "dislike", "unclick": "like"}


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DUMN(FeedbackModel):
    """Denoising User-aware Memory Network: short-term interest, purified, and long-term interest.

    1. Multi-head self-attention within every history, and pooling by user and target.
    2. FP: clicks lose what lies along dislikes, unclicks what lies along likes.
    3. UMN: a memory a feedback, shared by all users, is read for the long-term interest, and
       written after each training step.
    4. PAIR: both interests pass a gate each; a ReLU network scores them with user and item.

    The attention among behaviours is computed once a request; a candidate enters its pooling as
    one number. The user's parts of controllers and output network are computed once as well.

    Args:
        schema: what a request holds; needs the histories named below, with samples where there is
            a triplet loss.
        embedding_dim: width of every field. E, the width of a behaviour, is that times the fields
            of a history: behaviours are the target's fields side by side.
        histories: the feedbacks that are read.
        purify: whether clicks and unclicks are purified, where the opposite is read as well.
        num_heads: heads of the self-attention; they split the columns of E.
        attention_scale: `"max_length"` or `"head"`, see `MultiHeadInteractionAttention`.
        attention_hidden: hidden widths of the target attention; none as printed.
        pair: how the interests are joined: `gate`, `concat`, `cross`, `ffn` or `attention`, see
            `FUSIONS`.
        share_pair: one joining layer for all feedbacks.
        user_memory: options of `UserMemoryNetwork`; None leaves the memories out.
        deep_units: hidden widths of the output network.
        dropout: rate in the output network.
        context_dropout: rate at which whole context fields are dropped, see `FeatureEmbedding`.
        dislike_weight: see `FeedbackModel`; a dislike counts as any other non-click.
        output_bias: see `FeedbackModel`.
        **options: `click_weight`, `unclick_weight`, `dislike_head`, `dislike_protocol`, `name`;
            see `FeedbackModel`.

    Example:
        >>> from tfrec_feedback.models import build_model, empty_request
        >>> from tfrec_feedback.schema import Feature, FeedbackSequence, Identity
        >>> kinds = ("click", "unclick", "like", "dislike")
        >>> schema = Schema(
        ...     context=(Feature("hour", Identity(24)),),
        ...     candidate=(Feature("item_id", Identity(100)),),
        ...     histories=[FeedbackSequence(kind, ("item_id",), num_samples=4) for kind in kinds],
        ... )
        >>> model = build_model("dumn_learned_strength", schema)
        >>> sorted(model(empty_request(schema)))
        ['ctr', 'dislike']

    Reference: Bian et al., 2021, Denoising User-aware Memory Network for Recommendation, RecSys.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        histories: Sequence[str] = ("click", "unclick", "like", "dislike"),
        purify: bool = True,
        num_heads: int = 2,
        attention_scale: str = "max_length",
        attention_hidden: Sequence[int] = (),
        pair: str = "gate",
        share_pair: bool = False,
        user_memory: Mapping[str, Any] | None = {},  # noqa: B006 - never changed
        deep_units: Sequence[int] = (200, 80),
        dropout: float = 0.0,
        context_dropout: float = 0.0,
        dislike_weight: float = 1.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, dislike_weight=dislike_weight, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        if pair not in FUSIONS:
            raise ValueError(f"pair must be one of {list(FUSIONS)}, got {pair!r}.")
        if user_memory is None and pair != "gate":
            raise ValueError(
                f"pair={pair!r} joins short- and long-term interests: it needs a memory."
            )
        check_widths("deep_units", deep_units, (200, 80))
        self.histories = tuple(histories)
        if "all" in histories and "all" not in [history.name for history in schema.histories]:
            raise SchemaError(
                "The model reads one history of all feedback, which the data do not hold. Prepare "
                "them with `--histories all`."
            )
        self._histories = [schema.history(name) for name in self.histories]
        self.attentions = {
            history.name: MultiHeadInteractionAttention(
                num_heads,
                attention_scale,
                history.max_length,
                attention_hidden,
                name=f"attention_{history.name}",
            )
            for history in self._histories
        }
        self._purified = {
            name: explicit
            for name, explicit in _PURIFIED.items()
            if purify and {name, explicit} <= set(self.histories)
        }
        for pair_of_names in self._purified.items():
            check_same_features(schema, pair_of_names, "One is purified of the other")
        if share_pair:
            check_same_features(schema, self.histories, "One layer joins the interests of all")
        self.purification = FeaturePurification()
        if user_memory is not None:
            self.user_memory = make_user_memory(schema, self.histories, embedding_dim, user_memory)
        sampled = self.user_memory.sampled if self.user_memory is not None else ()
        self.embedding = FeatureEmbedding(
            schema, embedding_dim, self.histories, context_dropout, sampled
        )
        names = ["shared"] if share_pair else list(self.histories)
        self.pairs = [FUSIONS[pair](name=f"pair_{name}") for name in names]
        self._deep = [SplitDense(deep_units[0], "relu")]
        self._deep += [tf.keras.layers.Dense(units, "relu") for units in deep_units[1:]]
        self._dropouts = [ResumableDropout(dropout) for _ in deep_units]

    def call(
        self, features: Tensors, training: bool | None = None, return_interests: bool = False
    ) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        user, items = side_by_side(fields.context), side_by_side(fields.candidates)
        pooled = {
            history.name: self.attentions[history.name](
                user,
                items,
                side_by_side(fields.histories[history.name].to_tensor()),
                encoded[history.length],
            )
            for history in self._histories
        }
        short_term = self._purify(pooled)
        long_term, access = self.long_term(short_term, fields.context, return_interests)
        joined = [
            self._pair(name)(vectors, long_term.get(name)) for name, vectors in short_term.items()
        ]
        hidden: Any = (user, tf.concat([items, *joined], axis=-1))
        for layer, dropout in zip(self._deep, self._dropouts, strict=True):
            hidden = dropout(layer(hidden), training=training)
        outputs = self.task_logits(hidden)
        if return_interests:
            samples = sampled_items(self.schema, fields.samples, encoded)
            outputs[INTERESTS] = UserInterests(pooled, short_term, access, samples)
        return outputs

    def _purify(self, pooled: Tensors) -> Tensors:
        """Removes from implicit feedback what its opposite explicit feedback says."""
        return {
            name: self.purification(vectors, pooled[self._purified[name]])
            if name in self._purified
            else vectors
            for name, vectors in pooled.items()
        }

    def _pair(self, name: str) -> tf.keras.layers.Layer:
        return self.pairs[self.histories.index(name) if len(self.pairs) > 1 else 0]
