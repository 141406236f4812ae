"""DFN, the deep feedback network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import (
    BehaviourEmbedding,
    ExternalFeedbackInteraction,
    FeatureEmbedding,
    InternalFeedbackInteraction,
    LengthEmbedding,
    WideFMDeep,
    WideWeights,
)
from tfrec_feedback.models.base import INTERESTS, FeedbackModel, Tensors
from tfrec_feedback.models.user_memory_network import (
    UserInterests,
    make_user_memory,
    sampled_items,
)
from tfrec_feedback.schema import Schema


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DFN(FeedbackModel):
    """Deep Feedback Network: click, unclick and dislike histories, each read for what it is.

    1. Internal interaction: every feedback attends to the target within itself.
    2. External interaction: what the user clicked and disliked picks the real signal out of the
       noisy unclick history.
    3. Wide, FM and Deep parts over all fields and feedback vectors.

    The user's side is computed once a request, exactly (see the layers).

    Args:
        schema: what a request holds; needs the histories named below.
        embedding_dim: E, width of every field.
        attention_dim: D, width of behaviours and feedback vectors: a multiple of `embedding_dim`
            (each feedback vector then counts as D / E fields), or `"item"`, all item fields side
            by side (official code). Default: `embedding_dim`.
        internal: histories with an internal interaction.
        external: histories among `internal` that instruct the reading of `denoised`.
        denoised: the noisy history.
        num_heads: heads of the internal interaction.
        attention_scale: `"model"` or `"head"`, see `InternalFeedbackInteraction`.
        attention_pooling: `"mean"` or `"sum"`, see there.
        attention_output: whether heads are mixed by W_O, see there.
        ffn_multiplier: see there.
        external_units: hidden width of the external interaction.
        external_normalization: see `ExternalFeedbackInteraction`.
        external_score_scale: see there; None is D^-0.5.
        deep_units: widths of the deep part.
        dropout: rate in the deep part.
        context_dropout: rate at which the vectors of whole context fields are dropped, see
            `FeatureEmbedding`; their scalars in the wide part stay.
        history_length_fields: adds the length of every history as a field. Averages cannot tell
            how often the user clicked; off as printed, since it changes m.
        wide_bias: whether every field has a bias in the wide part.
        user_memory: options of a `UserMemoryNetwork` over the internal interactions' vectors, whose
            reads become further vectors (DFN+UMN); None, as printed, has no memory.
        **options: `click_weight`, `unclick_weight`, `dislike_weight`, `dislike_head`,
            `dislike_protocol`,
            `output_bias`, `name`; see `FeedbackModel`.

    Raises:
        ValueError: for wrong options.
        SchemaError: when a history is missing.

    Reference: Xie et al., 2020, Deep Feedback Network for Recommendation, IJCAI.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 64,
        attention_dim: int | str | None = None,
        internal: Sequence[str] = ("click", "unclick", "dislike"),
        external: Sequence[str] = ("dislike", "click"),
        denoised: str = "unclick",
        num_heads: int = 4,
        attention_scale: str = "model",
        attention_pooling: str = "mean",
        attention_output: bool = True,
        ffn_multiplier: int = 0,
        external_units: int = 32,
        external_normalization: str = "softmax",
        external_score_scale: float | None = 1.0,
        deep_units: Sequence[int] = (32, 16),
        dropout: float = 0.0,
        context_dropout: float = 0.0,
        history_length_fields: bool = False,
        wide_bias: bool = True,
        user_memory: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, **options)
        self.remember_arguments({**given, **options})
        missing = set(external) - set(internal)
        if missing:
            raise ValueError(
                f"external histories {sorted(missing)} are not among the internal ones."
            )
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}.")
        if history_length_fields and not (internal or external):
            raise ValueError("history_length_fields counts histories; this model reads none.")
        self.internal = tuple(internal)
        self.external = tuple(external)
        self.denoised = denoised
        self.wide = WideWeights(schema, wide_bias)
        if user_memory is not None and not internal:
            raise ValueError("user_memory remembers internal interactions; this model has none.")
        self._build_interactions(given)
        names = [history.name for history in self._histories]
        sampled = self.user_memory.sampled if self.user_memory is not None else ()
        self.embedding = FeatureEmbedding(schema, embedding_dim, names, context_dropout, sampled)
        self.length_embedding = None
        if history_length_fields and names:
            longest = max(history.max_length for history in self._histories)
            self.length_embedding = LengthEmbedding(embedding_dim, longest)
        self.wide_fm_deep = WideFMDeep(deep_units, dropout)

    def _build_interactions(self, given: dict[str, Any]) -> None:
        """Creates the layers that read histories, if any is read."""
        used = [*self.internal, *([self.denoised] if self.external else [])]
        self._histories = [h for h in self.schema.histories if h.name in used]
        for name in used:
            self.schema.history(name)
        if not used:
            return
        shared = {name for history in self._histories for name in history.features}
        candidate = [feature.name for feature in self.schema.candidate]
        self._target_fields = [i for i, name in enumerate(candidate) if name in shared]
        fields_width = len(self._target_fields) * given["embedding_dim"]
        width = given["embedding_dim"] if given["attention_dim"] is None else given["attention_dim"]
        width = fields_width if width == "item" else width
        if isinstance(width, str) or width < 1 or width % given["embedding_dim"]:
            raise ValueError(
                f"attention_dim must be 'item' or a multiple of embedding_dim "
                f"{given['embedding_dim']}, got {width!r}."
            )
        longest = max(history.max_length for history in self._histories)
        self.behaviour_embedding = BehaviourEmbedding(width, longest)
        self.target_projection = (
            tf.keras.layers.Dense(width, use_bias=False) if width != fields_width else None
        )
        self.internal_interactions = {
            name: InternalFeedbackInteraction(
                given["num_heads"],
                given["attention_scale"],
                given["attention_pooling"],
                given["attention_output"],
                given["ffn_multiplier"],
                name=f"internal_{name}",
            )
            for name in self.internal
        }
        if given["user_memory"] is not None:
            self.user_memory = make_user_memory(
                self.schema, self.internal, given["embedding_dim"], given["user_memory"]
            )
            self.memory_projections = {
                name: tf.keras.layers.Dense(width, use_bias=False, name=f"{name}_memory_projection")
                for name in self.internal
            }
        score_scale = given["external_score_scale"]
        self.external_interactions = {
            name: ExternalFeedbackInteraction(
                given["external_units"],
                given["external_normalization"],
                width**-0.5 if score_scale is None else score_scale,
                name=f"external_{name}",
            )
            for name in self.external
        }

    def call(
        self, features: Tensors, training: bool | None = None, return_interests: bool = False
    ) -> Tensors:
        """Scores every candidate of every request; reads as figure 2 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        vectors = [fields.candidates]
        of_feedback: Tensors = {}
        if self._histories:
            of_feedback, of_instructors = self._feedback_vectors(fields, encoded)
            vectors += self._as_fields([*of_feedback.values(), *of_instructors], fields.candidates)
        long_term, access = self.long_term(of_feedback, fields.context, return_interests)
        reads = [self.memory_projections[name](read) for name, read in long_term.items()]
        vectors += self._as_fields(reads, fields.candidates)
        context, candidates = fields.context, tf.concat(vectors, axis=2)
        if self.length_embedding is not None:
            lengths = {h.name: encoded[h.length] for h in self._histories}
            context = tf.concat([context, self.length_embedding(lengths)], axis=1)
        wide_context, wide_candidates = self.wide(encoded)
        representation = self.wide_fm_deep(
            (context, candidates, wide_context, wide_candidates), training=training
        )
        outputs = self.task_logits(representation)
        if return_interests:
            samples = sampled_items(self.schema, fields.samples, encoded)
            outputs[INTERESTS] = UserInterests(of_feedback, of_feedback, access, samples)
        return outputs

    def _feedback_vectors(self, fields: Any, encoded: Tensors) -> tuple[Tensors, list[tf.Tensor]]:
        """Returns f_c, f_u, f_d by feedback and f_ud, f_uc, all `[R, N, D]`."""
        lengths = {h.name: encoded[h.length] for h in self._histories}
        behaviours = self.behaviour_embedding(fields.histories)
        target = self._target(fields.candidates)
        of_feedback = {
            name: interaction(target, behaviours[name], lengths[name])
            for name, interaction in self.internal_interactions.items()
        }
        noisy, length = behaviours.get(self.denoised), lengths.get(self.denoised)
        of_instructors = [
            interaction(of_feedback[name], noisy, length)
            for name, interaction in self.external_interactions.items()
        ]
        return of_feedback, of_instructors

    def _as_fields(self, vectors: list[tf.Tensor], candidates: tf.Tensor) -> list[tf.Tensor]:
        """Cuts `[R, N, D]` into field vectors `[R, N, D / E, E]`."""
        shape, width = tf.shape(candidates), candidates.shape[-1]
        return [
            tf.reshape(vector, [shape[0], shape[1], vector.shape[-1] // width, width])
            for vector in vectors
        ]

    def _target(self, candidates: tf.Tensor) -> tf.Tensor:
        """Returns the target vectors `[R, N, D]` from the item fields that histories repeat."""
        items = tf.gather(candidates, self._target_fields, axis=2)
        shape = tf.shape(items)
        width = len(self._target_fields) * items.shape[-1]
        flat = tf.reshape(items, [shape[0], shape[1], width])
        return flat if self.target_projection is None else self.target_projection(flat)
