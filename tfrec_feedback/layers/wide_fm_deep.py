"""DFN's head: wide, factorization-machine and deep parts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.products import project
from tfrec_feedback.layers.widths import check_widths


def bi_interaction(total: tf.Tensor, total_of_squares: tf.Tensor) -> tf.Tensor:
    """Sum of the element-wise products of all pairs of vectors, from two sums.

    `0.5 * ((sum_k f_k)^2 - sum_k f_k^2)`: linear in the number of vectors.

    Args:
        total: sum of the vectors, `[..., D]`.
        total_of_squares: sum of their squares, `[..., D]`.

    Returns:
        float tensor `[..., D]`.

    Example:
        >>> vectors = tf.constant([[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]])
        >>> bi_interaction(tf.reduce_sum(vectors, 0), tf.reduce_sum(vectors**2, 0)).numpy()
        array([3., 2.], dtype=float32)

    Reference: He & Chua, 2017 (NFM), eq. 4; Xie et al., 2020 (DFN), section 3.4.
    """
    return 0.5 * (tf.square(total) - total_of_squares)


def request_bi_interaction(user: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Bi-Interaction of all fields of every candidate, the user's sums made once a request.

    Args:
        user: vectors of the user's fields, `[R, F, D]`.
        candidates: vectors of the candidates' fields, `[R, N, G, D]`.

    Returns:
        float tensor `[R, N, D]`.
    """
    return bi_interaction(
        tf.reduce_sum(user, 1)[:, tf.newaxis] + tf.reduce_sum(candidates, 2),
        tf.reduce_sum(tf.square(user), 1)[:, tf.newaxis] + tf.reduce_sum(tf.square(candidates), 2),
    )


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class WideFMDeep(tf.keras.layers.Layer):
    """`concat(y_wide, y_fm, y_deep)` of all field and feedback vectors of a candidate.

    - wide: the scalars of the fields, one each;
    - fm: Bi-Interaction of all vectors, kept as a vector;
    - deep: the concatenated vectors through ReLU layers.

    The user's vectors are the same for every candidate of a request: their two sums and their
    slice of the first deep layer are computed once a request.

    No masks: scores of padded candidates are garbage that nothing reads.

    Args:
        deep_units: widths of the deep layers.
        dropout: rate after each deep layer while training.

    Call arguments:
        inputs: `(context, candidates, wide_context, wide_candidates)`, float tensors
            `[R, F_context, D]`, `[R, N, F_candidate, D]`, `[R, W_context]` and
            `[R, N, W_candidate]`. Feedback vectors of a candidate are further entries of its
            field axis.

    Returns:
        float tensor `[R, N, W_context + W_candidate + D + deep_units[-1]]`.

    Example:
        >>> layer = WideFMDeep(deep_units=(32, 16))
        >>> context, candidates = tf.ones([2, 4, 8]), tf.ones([2, 5, 6, 8])
        >>> layer((context, candidates, tf.ones([2, 4]), tf.ones([2, 5, 3]))).shape
        TensorShape([2, 5, 31])

    Reference: Xie et al., 2020 (DFN), section 3.4, eqs. 7-9.
    """

    def __init__(self, deep_units: Sequence[int] = (32, 16), dropout: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        check_widths("deep_units", deep_units, (32, 16))
        self.deep_units = tuple(deep_units)
        self.dropout = dropout
        self._deeper = [tf.keras.layers.Dense(units, "relu") for units in self.deep_units[1:]]
        self._dropouts = [ResumableDropout(dropout) for _ in self.deep_units]

    def build(self, input_shape: Any) -> None:
        """Creates the first deep layer; its first rows belong to the context's fields."""
        context, candidates = (tf.TensorShape(shape) for shape in input_shape[:2])
        vectors = int(context[-2]) + int(candidates[-2])
        self.kernel = self.add_weight(
            name="kernel", shape=(vectors * int(candidates[-1]), self.deep_units[0])
        )
        self.bias = self.add_weight(name="bias", shape=(self.deep_units[0],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns the three parts of every candidate; see the class."""
        context, candidates, wide_context, wide_candidates = inputs
        factorized = request_bi_interaction(context, candidates)
        deep = tf.nn.relu(self._first(context, candidates))
        deep = self._dropouts[0](deep, training=training)
        for layer, dropout in zip(self._deeper, self._dropouts[1:], strict=True):
            deep = dropout(layer(deep), training=training)
        num_candidates = tf.shape(candidates)[1]
        repeated = tf.repeat(wide_context[:, tf.newaxis], num_candidates, axis=1)
        return tf.concat([repeated, wide_candidates, factorized, deep], axis=-1)

    def _first(self, context: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """The first deep layer, its context rows paid once a request."""
        rows = context.shape[1] * context.shape[-1]
        shape = tf.shape(candidates)
        of_context = tf.reshape(context, [shape[0], rows])
        of_candidates = tf.reshape(
            candidates, [shape[0], shape[1], candidates.shape[2] * candidates.shape[3]]
        )
        shared = project(of_context, self.kernel[:rows]) + self.bias
        return shared[:, tf.newaxis] + tf.tensordot(of_candidates, self.kernel[rows:], 1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "deep_units": list(self.deep_units),
            "dropout": self.dropout,
        }
