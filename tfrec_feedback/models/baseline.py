"""What the click models of the literature have in common here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import EmbeddedRequest, FeatureEmbedding, length_mask, ragged_mean
from tfrec_feedback.models.base import FeedbackModel, Tensors, side_by_side
from tfrec_feedback.schema import FeedbackSequence, Schema


class Baseline(FeedbackModel):
    """Base of the click models that are compared with DFN and DUMN.

    They see all that those see: every feedback history enters, read by the model's own attention
    where it has one, and otherwise as one field a history and feature, the mean of its events.
    They are trained on plain cross entropy; `dislike_weight=10` makes the "+" of any of them.

    Args:
        schema: what a request holds.
        embedding_dim: width of every field.
        histories: the feedback histories that are read; default: all of the schema.
        context_dropout: rate at which the vectors of whole context fields are dropped, see
            `FeatureEmbedding`; their scalars in a linear part stay.
        dislike_weight: see `FeedbackModel`; a dislike counts as any other non-click.
        **options: `click_weight`, `unclick_weight`, `dislike_head`, `dislike_protocol`,
            `output_bias`, `name`; see `FeedbackModel`.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        embedding_dim: int = 16,
        histories: Sequence[str] | None = None,
        context_dropout: float = 0.0,
        dislike_weight: float = 1.0,
        **options: Any,
    ):
        super().__init__(schema, dislike_weight=dislike_weight, **options)
        names = [h.name for h in schema.histories] if histories is None else list(histories)
        self.histories: tuple[FeedbackSequence, ...] = tuple(schema.history(n) for n in names)
        self.embedding_dim = embedding_dim
        self.context_dropout = context_dropout
        self.embedding = self.make_embedding()

    def make_embedding(self, samples: Sequence[str] = ()) -> FeatureEmbedding:
        """Returns the embeddings of all fields.

        Args:
            samples: histories whose samples are looked up as well.
        """
        names = [history.name for history in self.histories]
        return FeatureEmbedding(
            self.schema, self.embedding_dim, names, self.context_dropout, samples
        )

    def user_fields(
        self, fields: EmbeddedRequest, pooled: Sequence[str] | None = None
    ) -> tf.Tensor:
        """Returns the context's vectors, and those of histories as means: `[R, F, D]`.

        Args:
            fields: of the batch.
            pooled: the histories that enter as means; default: all.
        """
        names = list(fields.histories) if pooled is None else pooled
        means = [ragged_mean(fields.histories[name]) for name in names]
        return tf.concat([fields.context, *means], axis=1)

    def target(self, fields: EmbeddedRequest, history: FeedbackSequence) -> tf.Tensor:
        """Returns candidates as a history's events describe them: side by side, `[R, N, D]`."""
        names = [feature.name for feature in self.schema.candidate]
        columns = [names.index(feature) for feature in history.features]
        return side_by_side(tf.gather(fields.candidates, columns, axis=2))

    def valid(self, encoded: Tensors) -> tf.Tensor:
        """Returns which candidates are not padding, `[R, N]` of 1 and 0."""
        width = tf.shape(encoded["candidate_rows"])[1]
        return length_mask(encoded["num_candidates"], width)


def events_of(fields: EmbeddedRequest, history: FeedbackSequence) -> tf.RaggedTensor:
    """Returns a history's events, item fields side by side: ragged `[R, (n), D]`."""
    ragged = fields.histories[history.name]
    return ragged.with_flat_values(side_by_side(ragged.flat_values))
