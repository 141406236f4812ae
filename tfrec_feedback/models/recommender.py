"""GMF and NeuMF: recommenders that know users and items by their ids alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import FeatureEmbedding, SplitMLP
from tfrec_feedback.layers.products import batched_product
from tfrec_feedback.models.base import FeedbackModel, Tensors
from tfrec_feedback.schema import Schema, SchemaError

USER, ITEM = "user_id", "item_id"


class Recommender(FeedbackModel):
    """Base of the recommenders of collaborative filtering.

    They read the user's id, the item's id and, some of them, the user's clicks; whatever else a
    schema holds is left out (`reads`). They train on impression logs like any model here, and on
    interactions, where every request is a positive beside sampled negatives.

    Every observed click counts as a positive and everything else as a negative, with equal
    weights: what is done about false positives is the loss's affair (`loss`).

    Args:
        schema: what a request holds; needs the features `user_id` and `item_id`.
        dislike_weight: see `FeedbackModel`; a dislike counts as any other non-click.
        output_bias: see `FeedbackModel`.
        **options: `click_weight`, `unclick_weight`, `dislike_head`, `dislike_protocol`, `loss`,
            `name`; see `FeedbackModel`.
    """

    read_history: str | None = None
    """Name of the history that the model reads, or None; class attribute."""

    drop_base = "batch"

    num_negatives = 1
    """Negatives that training draws for a positive, unless the run says; class attribute."""

    def __init__(
        self,
        schema: Schema,
        *,
        dislike_weight: float = 1.0,
        output_bias: bool = True,
        **options: Any,
    ):
        super().__init__(
            self.reads(schema), dislike_weight=dislike_weight, output_bias=output_bias, **options
        )
        # The prediction layer of the ADT paper's code: uniform with variance 1 / width.
        self._click_output.kernel_initializer = tf.keras.initializers.VarianceScaling(
            1.0, "fan_in", "uniform"
        )

    @classmethod
    def reads(cls, schema: Schema) -> Schema:
        """Returns the part of a schema that the model looks at.

        Raises:
            SchemaError: when `user_id`, `item_id` or the history is missing.
        """
        features = {feature.name: feature for feature in schema.features}
        for name in (USER, ITEM):
            if name not in features or features[name].max_values > 1:
                raise SchemaError(
                    f"{cls.__name__} knows users and items by id: the schema needs the "
                    f"single-valued features {USER!r} and {ITEM!r}; it has {list(features)}."
                )
        histories = {history.name: history for history in schema.histories}
        if cls.read_history is not None and cls.read_history not in histories:
            raise SchemaError(
                f"{cls.__name__} reads the history {cls.read_history!r}; the schema has "
                f"{list(histories)}."
            )
        others = [name for name in features if name not in (USER, ITEM)]
        others += [name for name in histories if name != cls.read_history]
        return super().reads(schema).without(others)

    def catalogue_logits(self, encoded: Tensors, item_rows: tf.Tensor) -> tf.Tensor:
        """Scores the same items for every user, `[R, I]`.

        Args:
            encoded: requests of the users, by `FeatureEncoder`; their candidates are not looked
                at, and may be none.
            item_rows: rows of the items in the embedding table, int32 `[I]`.
        """
        requests = tf.shape(encoded["context_rows"])[0]
        rows = tf.tile(item_rows[tf.newaxis, :, tf.newaxis], [requests, 1, 1])
        everything = {
            **encoded,
            "candidate_rows": rows,
            "candidate_weights": tf.ones_like(rows, tf.float32),
            "num_candidates": tf.repeat(tf.shape(item_rows)[:1], requests),
        }
        return self(everything, training=False)["ctr"]


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class GMF(Recommender):
    """Generalised matrix factorisation: `s = h . (p_u * q_i) + b`.

    Args:
        schema: what a request holds.
        embedding_dim: D, width of users and items.
        **options: see `Recommender`.

    Reference: He et al., 2017, Neural Collaborative Filtering, eqs. 8 and 9; Wang et al., 2021
    (ADT), section 5.1.
    """

    def __init__(self, schema: Schema, embedding_dim: int = 32, **options: Any):
        super().__init__(schema, **options)
        self.remember_arguments({"embedding_dim": embedding_dim, **options})
        self.embedding = FeatureEmbedding(self.schema, embedding_dim)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request."""
        fields = self.embedding(self.encode(features), training=training)
        return self.task_logits(fields.context * fields.candidates[:, :, 0])

    def catalogue_logits(self, encoded: Tensors, item_rows: tf.Tensor) -> tf.Tensor:
        """Scores the same items for every user: one product of `p_u * h` with all items."""
        table, (kernel, *bias) = self.embedding.embeddings, self._click_output.weights
        users = tf.gather(table, encoded["context_rows"][:, 0]) * kernel[:, 0]
        logits = batched_product(users, tf.gather(table, item_rows), transpose_b=True)
        return self.signed_logits(logits + bias[0] if bias else logits)["ctr"]


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class NeuMF(Recommender):
    """Neural matrix factorisation: GMF and dense layers side by side, trained from scratch.

        s = h . concat(p_u * q_i, MLP(concat(p'_u, q'_i))) + b

    Both parts have embeddings of their own; those of the dense part are as wide as half its
    first layer's input. Shared by the candidates of a request: the user's part of that layer.

    Args:
        schema: what a request holds.
        embedding_dim: D, width of the GMF part and of the last dense layer.
        num_layers: L of the dense part: widths `2^(L-1) D, ..., 2 D, D`, embeddings of
            `2^(L-1) D`.
        dropout: rate after each dense layer.
        **options: see `Recommender`.

    Reference: He et al., 2017, Neural Collaborative Filtering, eq. 12 and figure 3; widths of Wang
    et al., 2021 (ADT).
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 32,
        num_layers: int = 3,
        dropout: float = 0.0,
        **options: Any,
    ):
        super().__init__(schema, **options)
        given = {"embedding_dim": embedding_dim, "num_layers": num_layers, "dropout": dropout}
        self.remember_arguments({**given, **options})
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}.")
        units: Sequence[int] = [embedding_dim << layer for layer in reversed(range(num_layers))]
        self.embedding = FeatureEmbedding(self.schema, embedding_dim, name="gmf_embedding")
        self.deep_embedding = FeatureEmbedding(self.schema, units[0], name="deep_embedding")
        self.deep = SplitMLP(units, dropout=dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 3 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        product = fields.context * fields.candidates[:, :, 0]
        deep_fields = self.deep_embedding(encoded, training=training)
        pair = deep_fields.context[:, 0], deep_fields.candidates[:, :, 0]
        return self.task_logits(tf.concat([product, self.deep(pair, training=training)], axis=-1))
