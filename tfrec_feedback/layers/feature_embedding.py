"""Embeddings of every field of a request, from one stacked table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.feature_encoding import Tensors, table_offsets
from tfrec_feedback.layers.masking import length_mask
from tfrec_feedback.layers.padded_attention import PaddedEvents
from tfrec_feedback.schema import Feature, FeedbackSequence, Schema


class EmbeddedRequest(NamedTuple):
    """Field vectors of a batch of requests; exactly 0 at padded candidates.

    Attributes:
        context: `[R, F_context, D]`.
        candidates: `[R, N, F_candidate, D]`.
        histories: for each feedback, ragged `[R, (n), F_history, D]`: valid events alone; or
            `PaddedEvents` of `[R, T, F_history, D]`, where the batch came with its vectors.
        samples: the same of items drawn from the user's whole earlier log; training batches alone.
    """

    context: tf.Tensor
    candidates: tf.Tensor
    histories: dict[str, tf.RaggedTensor | PaddedEvents]
    samples: dict[str, tf.RaggedTensor]


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FeatureEmbedding(tf.keras.layers.Layer):
    """Looks up one vector a field; multi-valued fields are the mean of their values.

    The tables of all features stand stacked in one variable, so that a step makes one sparse
    gradient and updates only the rows of the batch; `table(name)` shows one of them.

    Args:
        schema: what a request holds.
        embedding_dim: D, width of every field.
        histories: names of the histories to look up; default: all of the schema.
        context_dropout: share of context field vectors dropped as a whole while training: keeps
            the model from recognising the users it has seen. The scalars that linear parts have
            for these fields (`WideWeights`, `LinearTerm`) stay.
        samples: names of the histories whose samples are looked up as well, where the batch has
            them: training batches alone do.

    Call arguments:
        encoded: output of `FeatureEncoder`: `<group>_rows`, `<group>_weights`. Padded candidates
            have weight 0 and padded events are not looked up, so padding is never trained. What
            has `<group>_vectors` (`with_vectors`) is not looked up.

    Returns:
        `EmbeddedRequest`.

    Reference: Xie et al., 2020 (DFN), section 3.2; methods: every field has its own vector of
    width D, histories share the tables of the candidate.
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int,
        histories: Sequence[str] | None = None,
        context_dropout: float = 0.0,
        samples: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be positive, got {embedding_dim}.")
        self.schema = schema
        self.embedding_dim = embedding_dim
        every = [history.name for history in schema.histories]
        self.histories = every if histories is None else list(histories)
        self.context_dropout = context_dropout
        self.samples = list(samples)
        self._context_dropout = ResumableDropout(context_dropout)

    def build(self, input_shape: Any) -> None:
        """Creates the stacked table."""
        rows = sum(feature.num_rows for feature in self.schema.tables.values())
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(rows, self.embedding_dim),
            initializer=tf.keras.initializers.TruncatedNormal(stddev=0.01),
        )
        super().build(input_shape)

    def call(self, encoded: Tensors, training: bool | None = None) -> EmbeddedRequest:
        """Looks up the vectors of encoded requests."""
        context = self._lookup("context", self.schema.context, encoded)
        candidates = self._lookup("candidate", self.schema.candidate, encoded)
        kept = self._context_dropout(tf.ones_like(context[..., :1]), training=training)
        context *= kept
        histories = {
            name: self._history(self.schema.history(name), encoded) for name in self.histories
        }
        sampled = {name: self.schema.history(name).samples for name in self.samples}
        samples = {
            name: self._history(sequence, encoded)
            for name, sequence in sampled.items()
            if sequence.length in encoded
        }
        return EmbeddedRequest(context, candidates, histories, samples)

    def _lookup(self, group: str, used: Sequence[Feature], encoded: Tensors) -> tf.Tensor:
        given = encoded.get(f"{group}_vectors")
        vectors = tf.gather(self.embeddings, encoded[f"{group}_rows"]) if given is None else given
        vectors *= encoded[f"{group}_weights"][..., tf.newaxis]
        return sum_slots(vectors, used)

    def _history(self, sequence: FeedbackSequence, encoded: Tensors) -> Any:
        """Looks up valid events alone: most histories are much shorter than the longest."""
        name = sequence.name
        used = [self.schema.feature(feature) for feature in sequence.features]
        keys, lengths = (f"{name}_rows", f"{name}_weights"), encoded[sequence.length]
        if f"{name}_vectors" in encoded:
            valid = length_mask(lengths, tf.shape(encoded[keys[0]])[1])
            return PaddedEvents(self._lookup(name, used, encoded), valid)
        # RaggedTensor.from_tensor is some thirty operations a tensor, most of a small request.
        where = tf.where(tf.sequence_mask(lengths, tf.shape(encoded[keys[0]])[1]))
        if all(feature.max_values == 1 for feature in used):  # Valid events weigh 1.
            vectors = tf.gather(self.embeddings, tf.gather_nd(encoded[keys[0]], where))
        else:
            events = {key: tf.gather_nd(encoded[key], where) for key in keys}
            vectors = self._lookup(name, used, events)
        return tf.RaggedTensor.from_row_lengths(vectors, tf.cast(lengths, tf.int64), validate=False)

    def table(self, name: str) -> tf.Tensor:
        """Returns one table, `[rows, D]`: padding, unknown, then the known values in order."""
        if name not in self.schema.tables:
            raise ValueError(f"Unknown table {name!r}; the schema has {list(self.schema.tables)}.")
        start = table_offsets(self.schema)[name]
        return self.embeddings[start : start + self.schema.tables[name].num_rows]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "schema": self.schema.with_inline_vocabularies().to_dict(),
            "embedding_dim": self.embedding_dim,
            "histories": self.histories,
            "context_dropout": self.context_dropout,
            "samples": self.samples,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureEmbedding:
        """Builds the layer from `get_config`'s output."""
        return cls(**{**config, "schema": Schema.from_dict(config["schema"])})


def sum_slots(vectors: tf.Tensor, used: Sequence[Feature]) -> tf.Tensor:
    """Adds the slots of each multi-valued field: `[..., S, D]` to `[..., F, D]`."""
    if all(feature.max_values == 1 for feature in used):
        return vectors
    parts = tf.split(vectors, [feature.max_values for feature in used], axis=-2)
    return tf.concat([tf.reduce_sum(part, axis=-2, keepdims=True) for part in parts], axis=-2)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class WideWeights(tf.keras.layers.Layer):
    """One scalar a field: `w_i . onehot(x_i) + b_i`, initially 0.

    Fields that share an embedding table still have weights of their own.

    Args:
        schema: what a request holds.
        use_bias: adds the bias of each field.
        histories: names of histories whose features count as multi-valued fields of the user,
            each with the mean scalar of its events; they have no bias.

    Call arguments:
        encoded: output of `FeatureEncoder`; padded positions have weight 0.

    Returns:
        `(context [R, F_context + F_histories], candidates [R, N, F_candidate])`.

    Reference: Xie et al., 2020 (DFN), section 3.4, the wide part.
    """

    def __init__(
        self,
        schema: Schema,
        use_bias: bool = True,
        histories: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.schema = schema
        self.use_bias = use_bias
        self.histories = list(histories)

    def build(self, input_shape: Any) -> None:
        """Creates the stacked scalars, and the constant that moves a table row to its field."""
        tables, total = table_offsets(self.schema), 0
        self._groups = {"context": self.schema.context, "candidate": self.schema.candidate}
        for name in self.histories:
            features = self.schema.history(name).features
            self._groups[name] = tuple(self.schema.feature(feature) for feature in features)
        self._shifts: dict[str, list[int]] = {}
        for group, used in self._groups.items():
            self._shifts[group] = []
            for feature in used:
                self._shifts[group] += [total - tables[feature.table]] * feature.max_values
                total += feature.num_rows
        self.weights_of_values = self.add_weight(
            name="weights", shape=(total, 1), initializer="zeros"
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(len(self.schema.features),), initializer="zeros"
            )
        super().build(input_shape)

    def call(self, encoded: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Looks up the scalars of encoded requests."""
        context, candidates = self._lookup("context", encoded), self._lookup("candidate", encoded)
        if self.use_bias:
            num_context = len(self.schema.context)
            context += self.bias[:num_context]
            candidates += self.bias[num_context:]
        means = [self._mean(name, encoded) for name in self.histories]
        return tf.concat([context, *means], axis=1), candidates

    def _mean(self, name: str, encoded: Tensors) -> tf.Tensor:
        length = encoded[self.schema.history(name).length][:, tf.newaxis]
        total = tf.reduce_sum(self._lookup(name, encoded), axis=1)
        return total / tf.maximum(tf.cast(length, total.dtype), 1.0)

    def _lookup(self, group: str, encoded: Tensors) -> tf.Tensor:
        rows = encoded[f"{group}_rows"]
        weights = encoded[f"{group}_weights"]
        shifted = tf.where(weights > 0.0, rows + tf.constant(self._shifts[group], tf.int32), 0)
        scalars = tf.gather(self.weights_of_values, shifted) * weights[..., tf.newaxis]
        return sum_slots(scalars, self._groups[group])[..., 0]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        schema = self.schema.with_inline_vocabularies().to_dict()
        more = {"use_bias": self.use_bias, "histories": self.histories}
        return {**super().get_config(), "schema": schema, **more}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WideWeights:
        """Builds the layer from `get_config`'s output."""
        return cls(**{**config, "schema": Schema.from_dict(config["schema"])})
