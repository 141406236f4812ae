"""One vector a behaviour: its item fields and how long ago it happened."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import length_mask


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
        fields: for each feedback, float tensor `[R, T, F, E]`.
        lengths: for each feedback, integer tensor `[R]`.

    Returns:
        for each feedback, float tensor `[R, T, D]`, exactly 0 at padded positions.

    Example:
        >>> layer = BehaviourEmbedding(units=8, max_length=30)
        >>> layer({"click": tf.ones([2, 5, 3, 4])}, {"click": tf.constant([5, 0])})["click"].shape
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

    def call(
        self, fields: dict[str, tf.Tensor], lengths: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Returns one vector a behaviour; see the class."""
        return {name: self._project(name, fields[name], lengths[name]) for name in fields}

    def _project(self, name: str, fields: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(fields)
        item_width = fields.shape[-2] * fields.shape[-1]
        items = tf.reshape(fields, [shape[0], shape[1], item_width])
        projected = tf.tensordot(items, self.kernels[name][:item_width], 1)
        ages = tf.tensordot(self.age_ranks, self.kernels[name][item_width:], 1)
        ranks = lengths[:, tf.newaxis] - tf.range(shape[1], dtype=lengths.dtype)
        ranks = tf.clip_by_value(ranks, 0, self.max_length)
        mask = length_mask(lengths, shape[1])[..., tf.newaxis]
        return (projected + tf.gather(ages, ranks)) * mask

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "units": self.units, "max_length": self.max_length}
