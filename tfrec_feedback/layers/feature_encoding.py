"""From raw feature values to rows of the embedding table."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import length_mask
from tfrec_feedback.schema import (
    FIRST_ROW,
    UNKNOWN_ROW,
    Buckets,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    Schema,
    Vocabulary,
)

Tensors = dict[str, tf.Tensor]


def table_offsets(schema: Schema) -> dict[str, int]:
    """Returns where each table begins when all tables are stacked in one, by table name."""
    return schema.table_offsets()


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FeatureEncoder(tf.keras.layers.Layer):
    """Turns raw request tensors into embedding rows, whatever the raw values are.

    All tables of a schema are stacked in one, so a row number says both the table and the value.
    Each group (`context`, `candidate` and one per history) becomes two tensors whose last axis
    holds S slots: one for a single-valued feature, `max_values` for a multi-valued one.

    - `<group>_rows`: int32, `[R, S]`, `[R, N, S]` or `[R, T, S]`.
    - `<group>_weights`: float32 of the same shape: 1, or 1 / count for the values of a
      multi-valued feature, and 0 at every padded position. A weighted sum of the rows over a
      feature's slots is its (mean) embedding, and exactly 0 where there is nothing.
    - `num_candidates` and `<history>_length`: int32 `[R]`, clamped to what the tensors hold.
    - `<history>_session`, of histories that have sessions: int32 `[R, T]`, the session of every
      event counted back from the most recent, between 0 and K = `num_sessions`; K where padded.

    Nothing a caller sends makes it fail or read garbage: values outside the vocabulary take the
    unknown row, histories longer than `max_length` keep their most recent events, lengths and
    counts beyond the tensors are clamped, and what stands at padded positions is ignored.

    No weights. Encode inside `tf.data` (`dataset.map`) to keep lookups out of the training step,
    or let the model do it: it accepts raw and encoded requests alike.

    Args:
        schema: what a request holds; its vocabularies must be readable.

    Call arguments:
        features: the tensors of `schema.inputs()`, by name. In training also those of
            `schema.training_inputs()`: samples whose lengths are there are encoded like
            histories, to `<history>_sample_rows` and so on; where they are not, there are none.
    """

    def __init__(self, schema: Schema, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.schema = schema
        self._offsets = table_offsets(schema)
        self.lookup_tables = {
            name: _lookup_table(schema, name)
            for name, feature in schema.tables.items()
            if isinstance(feature.encoding, Vocabulary)
        }

    def call(self, features: Tensors) -> Tensors:
        """Encodes raw tensors; see the class for the result."""
        samples = [sample for sample in self.schema.samples if sample.length in features]
        self._check_complete(features, {sample.name for sample in samples})
        encoded = self._encode_group("context", self.schema.context, features, "")
        candidates = self._encode_group("candidate", self.schema.candidate, features, "")
        width = tf.shape(candidates["candidate_rows"])[1]
        encoded |= _mask_group("candidate", candidates, features["num_candidates"], width)
        encoded["num_candidates"] = _clamp(features["num_candidates"], width)
        for sequence in (*self.schema.histories, *samples):
            encoded |= self._encode_history(sequence, features)
        return encoded

    def _check_complete(self, features: Tensors, samples: set[str]) -> None:
        expected = [spec.name for spec in self.schema.inputs()]
        expected += [s.name for s in self.schema.training_inputs() if s.sequence in samples]
        missing = [name for name in expected if name not in features]
        if missing:
            raise ValueError(
                f"The request batch is missing {missing}. Expected the tensors {expected}, got "
                f"{sorted(features)}."
            )

    def _encode_history(self, sequence: FeedbackSequence, features: Tensors) -> Tensors:
        used = [self.schema.feature(name) for name in sequence.features]
        prefix = f"{sequence.name}_"
        first = features[prefix + used[0].name]
        width = tf.shape(first)[1]
        length = _clamp(features[sequence.length], width)
        if first.shape[1] is None or first.shape[1] > sequence.max_length:
            features, length, width = _most_recent(features, prefix, used, length, sequence)
        encoded = self._encode_group(sequence.name, used, features, prefix)
        encoded = _mask_group(sequence.name, encoded, length, width)
        if sequence.num_sessions:
            numbers = tf.clip_by_value(features[sequence.session], 0, sequence.num_sessions)
            valid = tf.sequence_mask(length, width)
            encoded[sequence.session] = tf.where(
                valid, tf.cast(numbers, tf.int32), sequence.num_sessions
            )
        encoded[sequence.length] = length
        return encoded

    def _encode_group(self, group: str, used: Any, features: Tensors, prefix: str) -> Tensors:
        rows, weights = [], []
        for feature in used:
            values = tf.convert_to_tensor(features[prefix + feature.name])
            encoded = self._rows(feature, values)
            if feature.max_values == 1:
                encoded = encoded[..., tf.newaxis]
                weights.append(tf.ones_like(encoded, tf.float32))
            else:
                width = tf.shape(values)[-1]
                count = _clamp(features[f"{prefix}{feature.name}_count"], width)
                # A caller may send more values than there are slots: the first ones count.
                count = tf.minimum(count, feature.max_values)
                share = 1.0 / tf.cast(tf.maximum(count, 1), tf.float32)
                weight = length_mask(count, width) * share[..., tf.newaxis]
                encoded = _fixed_width(encoded, feature.max_values)
                weights.append(_fixed_width(weight, feature.max_values))
            rows.append(encoded)
        if not rows:
            requests = tf.shape(features["num_candidates"])[0]
            empty = tf.zeros([requests, 0], tf.int32)
            return {f"{group}_rows": empty, f"{group}_weights": tf.cast(empty, tf.float32)}
        return {f"{group}_rows": tf.concat(rows, -1), f"{group}_weights": tf.concat(weights, -1)}

    def _rows(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        encoding = feature.encoding
        if isinstance(encoding, Vocabulary):
            index = self.lookup_tables[feature.table].lookup(values) + FIRST_ROW
        elif isinstance(encoding, Hashing):
            text = values if values.dtype == tf.string else tf.strings.as_string(values)
            index = tf.strings.to_hash_bucket_fast(text, encoding.size) + FIRST_ROW
        elif isinstance(encoding, Identity):
            known = (values >= 0) & (values < encoding.size)
            index = tf.where(known, values + FIRST_ROW, tf.cast(UNKNOWN_ROW, values.dtype))
        elif isinstance(encoding, Buckets):
            buckets = tf.raw_ops.Bucketize(input=values, boundaries=list(encoding.boundaries))
            index = buckets + FIRST_ROW
        else:
            raise TypeError(f"Feature {feature.name!r} has unknown encoding {encoding!r}.")
        return tf.cast(index, tf.int32) + self._offsets[feature.table]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, vocabularies included."""
        schema = self.schema.with_inline_vocabularies().to_dict()
        return {**super().get_config(), "schema": schema}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureEncoder:
        """Builds the layer from `get_config`'s output."""
        config = {k: v for k, v in config.items() if k != "trainable"}
        return cls(**{**config, "schema": Schema.from_dict(config["schema"])})


def _lookup_table(schema: Schema, table: str) -> tf.lookup.StaticHashTable:
    """Maps a token to its line number, or to the number that becomes the unknown row."""
    encoding = schema.tables[table].encoding
    if not isinstance(encoding, Vocabulary):
        raise TypeError(f"Table {table!r} is not encoded by a vocabulary.")
    dtype = tf.as_dtype(encoding.dtype)
    initializer: Any
    if encoding.file is not None:
        initializer = tf.lookup.TextFileInitializer(
            str(schema.vocabulary_path(table)),
            key_dtype=dtype,
            key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            value_dtype=tf.int64,
            value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            vocab_size=encoding.size,
        )
    else:
        keys = tf.constant(list(encoding.tokens or ()), dtype)
        initializer = tf.lookup.KeyValueTensorInitializer(
            keys, tf.range(encoding.size, dtype=tf.int64)
        )
    return tf.lookup.StaticHashTable(initializer, default_value=UNKNOWN_ROW - FIRST_ROW)


def _clamp(lengths: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    clamped = tf.clip_by_value(lengths, 0, tf.cast(width, lengths.dtype))
    return tf.cast(clamped, tf.int32)


def _fixed_width(values: tf.Tensor, width: int) -> tf.Tensor:
    """Cuts or zero-pads the last axis, whose width a server does not enforce."""
    if values.shape[-1] == width:
        return values
    values = values[..., :width]
    padding = tf.zeros(tf.concat([tf.shape(values)[:-1], [width - tf.shape(values)[-1]]], 0))
    padded = tf.concat([values, tf.cast(padding, values.dtype)], -1)
    padded.set_shape([*values.shape[:-1], width])
    return padded


def _mask_group(group: str, encoded: Tensors, lengths: tf.Tensor, width: tf.Tensor) -> Tensors:
    """Zeroes rows and weights beyond the true length."""
    mask = tf.sequence_mask(lengths, width)[..., tf.newaxis]
    rows, weights = encoded[f"{group}_rows"], encoded[f"{group}_weights"]
    return {
        f"{group}_rows": tf.where(mask, rows, 0),
        f"{group}_weights": tf.where(mask, weights, 0.0),
    }


def _most_recent(
    features: Tensors,
    prefix: str,
    used: list[Feature],
    length: tf.Tensor,
    sequence: FeedbackSequence,
) -> tuple[Tensors, tf.Tensor, tf.Tensor]:
    """Slices every tensor of a history to its last `max_length` valid events."""
    first = features[prefix + used[0].name]
    width = tf.minimum(tf.shape(first)[1], sequence.max_length)
    start = tf.maximum(length - width, 0)
    positions = start[:, tf.newaxis] + tf.range(width)[tf.newaxis, :]
    names = [prefix + feature.name for feature in used]
    names += [f"{prefix}{feature.name}_count" for feature in used if feature.max_values > 1]
    names += [sequence.session] if sequence.num_sessions else []
    recent = {name: tf.gather(features[name], positions, batch_dims=1) for name in names}
    return {**features, **recent}, tf.minimum(length, width), width
