"""One vector a behaviour: its item fields and how long ago it happened."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class BehaviourEmbedding(tf.keras.layers.Layer):
    """Projects `concat(item fields, age rank)` of every behaviour, without bias.

    Every kind of feedback has its own projection; all share one table of age ranks, where rank 1
    is the most recent event. Only T + 1 different ranks exist, so their part of the product is
    made once and gathered.

    Args:
        units: D, width of the result.
        max_length: the oldest rank that is told apart; older events share it.

    Call arguments:
        fields: for each feedback, ragged float tensor `[R, (n), F, E]`: valid events alone.

    Returns:
        for each feedback, float tensor `[R, T, D]`, exactly 0 at padded positions, where T is the
        longest history of the batch.

    Example:
        >>> layer = BehaviourEmbedding(units=8, max_length=30)
        >>> events = tf.RaggedTensor.from_row_lengths(tf.ones([5, 3, 4]), [5, 0])
        >>> layer({"click": events})["click"].shape
        TensorShape([2, 5, 8])

    Reference: Xie et al., 2020 (DFN), section 3.2.
    """

    def __init__(self, units: int, max_length: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.max_length = max_length

    def build(self, input_shape: Any) -> None:
        """Creates the table of ages and one projection a feedback; its last rows are the age's."""
        shapes = {name: tf.TensorShape(shape) for name, shape in input_shape.items()}
        width = int(next(iter(shapes.values()))[-1])
        self.age_ranks = self.add_weight(
            name="age_ranks",
            shape=(self.max_length + 1, width),
            initializer=tf.keras.initializers.TruncatedNormal(stddev=0.01),
        )
        self.kernels = {
            name: self.add_weight(
                name=f"{name}_kernel", shape=((int(shape[-2]) + 1) * width, self.units)
            )
            for name, shape in shapes.items()
        }
        super().build(input_shape)

    def call(self, fields: dict[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        """Returns one vector a behaviour; see the class."""
        return {name: self._project(name, events) for name, events in fields.items()}

    def _project(self, name: str, events: tf.RaggedTensor) -> tf.Tensor:
        values, kernel = events.flat_values, self.kernels[name]
        item_width = values.shape[-2] * values.shape[-1]
        items = tf.reshape(values, [-1, item_width])
        ages = tf.tensordot(self.age_ranks, kernel[item_width:], 1)
        # Rank 1 is the last event of its request, whose end row_splits knows.
        ends = tf.gather(events.row_splits, events.value_rowids() + 1)
        ranks = tf.minimum(ends - tf.range(tf.shape(items, tf.int64)[0]), self.max_length)
        projected = tf.tensordot(items, kernel[:item_width], 1) + tf.gather(ages, ranks)
        return events.with_flat_values(projected).to_tensor()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "units": self.units, "max_length": self.max_length}


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class LengthEmbedding(tf.keras.layers.Layer):
    """One vector a history for how many events it holds: what averages cannot tell.

    Args:
        units: D, width of a vector.
        max_length: the largest length that is told apart.

    Call arguments:
        lengths: for each feedback, integer tensor `[R]`.

    Returns:
        float tensor `[R, F, D]`, F feedbacks in the order given.
    """

    def __init__(self, units: int, max_length: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.max_length = max_length

    def build(self, input_shape: Any) -> None:
        """Creates one table a feedback, stacked."""
        self.table = self.add_weight(
            name="table",
            shape=(len(input_shape) * (self.max_length + 1), self.units),
            initializer=tf.keras.initializers.TruncatedNormal(stddev=0.01),
        )
        super().build(input_shape)

    def call(self, lengths: dict[str, tf.Tensor]) -> tf.Tensor:
        """Looks up the lengths of every feedback."""
        stacked = tf.stack([tf.cast(length, tf.int32) for length in lengths.values()], axis=1)
        rows = tf.clip_by_value(stacked, 0, self.max_length)
        rows += tf.range(len(lengths)) * (self.max_length + 1)
        return tf.gather(self.table, rows)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "units": self.units, "max_length": self.max_length}
