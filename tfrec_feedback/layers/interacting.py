"""AutoInt's interacting layer: self-attention among the fields of a candidate and his user."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.products import batched_product, project


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class InteractingLayer(tf.keras.layers.Layer):
    """`ReLU( concat_h sum_j softmax_j(q_k . k_j) v_j + W_res e_k )` for every field k.

    Scores are not scaled, as printed. Fields of the user's are rows of every candidate's matrix.
    In a first layer (`inputs` a pair) they are still the same for all candidates, so their
    projections, their scores with one another, and what of each softmax these decide (largest
    score, sum, weighted values) are made once a request; a candidate then adds only its own
    columns. In deeper layers every row has met the candidate, and nothing is left to share.

    Args:
        units: width d' of a head.
        num_heads: H.
        use_residual: adds W_res e.

    Call arguments:
        inputs: `(user, candidates)`, float tensors `[R, F, D]` and `[R, N, G, D]`, or what a layer
            before returned, `[R, N, F + G, D]`.

    Returns:
        float tensor `[R, N, F + G, H d']`: the user's fields first.

    Example:
        >>> first, second = InteractingLayer(4), InteractingLayer(4)
        >>> second(first((tf.ones([2, 3, 8]), tf.ones([2, 5, 2, 8])))).shape
        TensorShape([2, 5, 5, 8])

    Reference: Song et al., 2019 (AutoInt), eqs. 5-8.
    """

    def __init__(
        self, units: int = 16, num_heads: int = 2, use_residual: bool = True, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if units < 1 or num_heads < 1:
            raise ValueError(f"units and num_heads must be positive, got {units} and {num_heads}.")
        self.units = units
        self.num_heads = num_heads
        self.use_residual = use_residual

    def build(self, input_shape: Any) -> None:
        """Creates W_query, W_key, W_value and W_res, side by side in one kernel.

        Each is initialised alone: a common kernel would be too wide for Glorot's limits.
        """
        shape = input_shape[0] if isinstance(input_shape, tuple | list) else input_shape
        width = int(tf.TensorShape(shape)[-1])
        names = ["query", "key", "value", *(["residual"] if self.use_residual else [])]
        self.kernels = [
            self.add_weight(name=name, shape=(width, self.num_heads * self.units)) for name in names
        ]
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the fields after one round of attention; see the class."""
        if isinstance(inputs, tuple | list):
            attended, residual = self._first(*inputs)
        else:
            shape = tf.shape(inputs)
            fields = tf.reshape(inputs, [-1, inputs.shape[2], inputs.shape[3]])
            query, key, value, residual = self._projections(fields)
            weights = tf.nn.softmax(batched_product(query, key, transpose_b=True))
            attended = self._joined(batched_product(weights, value))
            width = [inputs.shape[2], self.num_heads * self.units]
            attended = tf.reshape(attended, tf.concat([shape[:2], width], axis=0))
            if residual is not None:
                residual = tf.reshape(residual, tf.shape(attended))
        return tf.nn.relu(attended if residual is None else attended + residual)

    def _projections(self, fields: tf.Tensor) -> Any:
        """Queries, keys, values `[B, H, F, d']` and residuals `[B, F, H d']` of `[B, F, D]`."""
        projected = project(fields, tf.concat(self.kernels, axis=1))
        parts = tf.split(projected, len(self.kernels), axis=-1)
        rows = tf.shape(fields)[1] if fields.shape[1] is None else fields.shape[1]
        shape = [-1, rows, self.num_heads, self.units]
        heads = [tf.transpose(tf.reshape(part, shape), [0, 2, 1, 3]) for part in parts[:3]]
        return (*heads, parts[3] if self.use_residual else None)

    def _joined(self, heads: tf.Tensor) -> tf.Tensor:
        """Heads side by side: `[B, H, F, d']` to `[B, F, H d']`."""
        shape = [-1, heads.shape[2], self.num_heads * self.units]
        return tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), shape)

    def _first(self, user: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """Attention where the user's rows are shared; B stands for R N."""
        shape = tf.shape(candidates)
        requests, count, num_items = shape[0], shape[1], candidates.shape[2]
        query_u, key_u, value_u, residual_u = self._projections(user)
        flat = tf.reshape(candidates, [requests, count * num_items, candidates.shape[3]])
        query_c, key_c, value_c, residual_c = self._projections(flat)
        # What the user's fields alone make of a softmax over them, for every field of both.
        query = tf.concat([query_u, query_c], axis=2)
        of_user = self._partial(batched_product(query, key_u, transpose_b=True), value_u)
        num_user = user.shape[1]
        rows_u = [part[:, :, :num_user] for part in of_user]
        rows_c = [part[:, :, num_user:] for part in of_user]
        rows = [
            tf.concat([self._repeated(a, count), self._per_candidate(b, count, num_items)], axis=2)
            for a, b in zip(rows_u, rows_c, strict=True)
        ]
        # The candidate's own columns.
        query = tf.concat(
            [self._repeated(query_u, count), self._per_candidate(query_c, count, num_items)], axis=2
        )
        key, value = (self._per_candidate(x, count, num_items) for x in (key_c, value_c))
        own = self._partial(batched_product(query, key, transpose_b=True), value)
        attended = self._joined(_merged(rows, own))
        width = [num_user + num_items, self.num_heads * self.units]
        attended = tf.reshape(attended, tf.concat([shape[:2], width], axis=0))
        if not self.use_residual:
            return attended, None
        residual_c = tf.reshape(residual_c, [requests, count, num_items, width[1]])
        residual_u = tf.repeat(residual_u[:, tf.newaxis], count, axis=1)
        return attended, tf.concat([residual_u, residual_c], axis=2)

    @staticmethod
    def _partial(scores: tf.Tensor, values: tf.Tensor) -> list[tf.Tensor]:
        """Largest score, sum of exponentials and weighted values over some columns."""
        highest = tf.reduce_max(tf.stop_gradient(scores), axis=-1, keepdims=True)
        exponentials = tf.exp(scores - highest)
        total = tf.reduce_sum(exponentials, axis=-1, keepdims=True)
        return [highest, total, batched_product(exponentials, values)]

    @staticmethod
    def _repeated(x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """The user's rows for every candidate: `[R, H, F, d]` to `[R N, H, F, d]`."""
        return tf.repeat(x, count, axis=0)

    @staticmethod
    def _per_candidate(x: tf.Tensor, count: tf.Tensor, fields: int) -> tf.Tensor:
        """`[R, H, N G, d]` to `[R N, H, G, d]`."""
        heads, width = x.shape[1], x.shape[3]
        x = tf.reshape(x, [-1, heads, count, fields, width])
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3, 4]), [-1, heads, fields, width])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "num_heads": self.num_heads,
            "use_residual": self.use_residual,
        }


def _merged(first: list[tf.Tensor], second: list[tf.Tensor]) -> tf.Tensor:
    """Joins two parts of a softmax over columns into its weighted values."""
    top = tf.maximum(first[0], second[0])
    a, b = tf.exp(first[0] - top), tf.exp(second[0] - top)
    return (a * first[2] + b * second[2]) / (a * first[1] + b * second[1])
