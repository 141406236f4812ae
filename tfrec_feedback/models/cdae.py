"""CDAE, the collaborative denoising autoencoder."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import EmbeddedRequest, FeatureEmbedding, ResumableDropout
from tfrec_feedback.layers.masking import sum_rows
from tfrec_feedback.layers.products import batched_product
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.recommender import USER, Recommender
from tfrec_feedback.schema import Schema


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class CDAE(Recommender):
    """Collaborative denoising autoencoder: rebuilds a user's clicks from a part of them.

        x~ = dropout(x, q) / (1 - q),   z = act(x~ W1 + V_u + b1),   s_i = z W2_i + b2_i

    `x` is the user's clicks as a vector over items: `x W1` is a sum of rows of W1, so neither x nor
    the scores of all items are ever formed. Shared by the candidates of a request: z.

    Args:
        schema: what a request holds; needs the history `click`, as long as any user's clicks.
        embedding_dim: width of z.
        corruption: q, share of the clicks that is dropped while training.
        activation: of z, any of Keras.
        tied: whether W2 is W1.
        **options: see `Recommender`; b2 is the bias.

    Reference: Wu et al., 2016, Collaborative Denoising Auto-Encoders, WSDM, eqs. 7 to 9.
    """

    read_history = "click"
    learned_output = False
    num_negatives = 5

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 200,
        corruption: float = 0.5,
        activation: str = "sigmoid",
        tied: bool = False,
        **options: Any,
    ):
        super().__init__(schema, **options)
        given = {"embedding_dim": embedding_dim, "corruption": corruption}
        self.remember_arguments({**given, "activation": activation, "tied": tied, **options})
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}.")
        self.activation = tf.keras.activations.get(activation)
        # The last number of a row that gives a score is the item's bias b2.
        width = embedding_dim + 1
        self.embedding = FeatureEmbedding(self.schema, width if tied else embedding_dim)
        self.output_embedding = self.embedding
        if not tied:
            # The candidates' table is the first of a schema: its rows are the same without users.
            outputs = self.schema.without([USER, self.read_history])
            self.output_embedding = FeatureEmbedding(outputs, width, name="output_embedding")
        self.hidden_bias = self.add_weight("hidden_bias", (embedding_dim,), initializer="zeros")
        self._corruption = ResumableDropout(corruption, name="corruption")

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 1 of the paper."""
        encoded = self.encode(features)
        fields = self.embedding(encoded, training=training)
        hidden = self._hidden(fields, training)
        if self.output_embedding is not self.embedding:
            no_user = {key: encoded[key][:, :0] for key in ("context_rows", "context_weights")}
            fields = self.output_embedding({**encoded, **no_user}, training=training)
        return self.task_logits(hidden[:, tf.newaxis] * fields.candidates[:, :, 0])

    def _hidden(self, fields: EmbeddedRequest, training: bool | None) -> tf.Tensor:
        """Returns z of every user and, after it, the 1 that meets the items' biases."""
        clicks: Any = fields.histories[self.read_history]
        width = self.hidden_bias.shape[0]
        rows = side_by_side(clicks.flat_values)[:, :width]
        kept = self._corruption(tf.ones_like(rows[:, :1]), training=training)
        total = sum_rows(rows * kept, clicks.value_rowids(), clicks.nrows())
        hidden = self.activation(total + fields.context[:, 0, :width] + self.hidden_bias)
        return tf.concat([hidden, tf.ones_like(hidden[:, :1])], axis=1)

    def catalogue_logits(self, encoded: Tensors, item_rows: tf.Tensor) -> tf.Tensor:
        """Scores the same items for every user: one product of z with all items."""
        hidden = self._hidden(self.embedding(encoded, training=False), training=False)
        items = tf.gather(self.output_embedding.embeddings, item_rows)
        return self.signed_logits(batched_product(hidden, items, transpose_b=True))["ctr"]
