"""Products of pairs of field vectors, those between the user's own fields made once a request.

With F fields of the user and G of a candidate, the F (F - 1) / 2 pairs of the user are the same
for every candidate. They come first in every layer here; then follow, for each candidate, its
F G pairs with the user's fields and its own G (G - 1) / 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.products import batched_product, project


def upper_triangle(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the pairs i < j."""
    return np.triu_indices(size, 1)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FieldPairs(tf.keras.layers.Layer):
    """Element-wise products of all pairs of fields. No weights.

    Call arguments:
        inputs: `(user, candidates)`, float tensors `[R, F, D]` and `[R, N, G, D]`.

    Returns:
        `(user [R, P_user, D], candidates [R, N, P_candidate, D])` with
        `P_user = F (F - 1) / 2` and `P_candidate = F G + G (G - 1) / 2`.
    """

    def call(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the products; see the class."""
        user, candidates = inputs
        of_user = _pairs(user, 1)
        between = candidates[:, :, tf.newaxis] * user[:, tf.newaxis, :, tf.newaxis]
        shape = tf.shape(candidates)
        num_between = user.shape[1] * candidates.shape[2]
        between = tf.reshape(between, [shape[0], shape[1], num_between, user.shape[2]])
        return of_user, tf.concat([between, _pairs(candidates, 2)], axis=2)


def _pairs(vectors: tf.Tensor, axis: int) -> tf.Tensor:
    left, right = upper_triangle(vectors.shape[axis])
    return tf.gather(vectors, left, axis=axis) * tf.gather(vectors, right, axis=axis)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class InnerProducts(tf.keras.layers.Layer):
    """Inner products of all pairs of fields. No weights.

    Call arguments:
        inputs: `(user, candidates)`, float tensors `[R, F, D]` and `[R, N, G, D]`.

    Returns:
        `(user [R, P_user], candidates [R, N, P_candidate])`: as many as of `FieldPairs`, with the
        candidate's fields, not the user's, in the outer loop.

    Reference: Qu et al., 2016 (PNN), section III-B.
    """

    def call(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the products; see the class."""
        user, candidates = inputs
        num_user, num_items, width = user.shape[1], candidates.shape[2], user.shape[2]
        shape = tf.shape(candidates)
        requests, count = shape[0], shape[1]
        of_user = batched_product(user, user, transpose_b=True)
        rows = tf.reshape(candidates, [requests, count * num_items, width])
        between = batched_product(rows, user, transpose_b=True)
        between = tf.reshape(between, [requests, count, num_items * num_user])
        own = batched_product(candidates, candidates, transpose_b=True)
        own = tf.reshape(own, [requests, count, num_items * num_items])
        of_user = tf.reshape(of_user, [requests, num_user * num_user])
        return (
            tf.gather(of_user, _flat_triangle(num_user), axis=1),
            tf.concat([between, tf.gather(own, _flat_triangle(num_items), axis=2)], axis=2),
        )


def _flat_triangle(size: int) -> np.ndarray:
    left, right = upper_triangle(size)
    return left * size + right


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class OuterProducts(tf.keras.layers.Layer):
    """Outer products of fields, in one of two reduced forms.

    - `"superposition"`: `(sum_i v_i)(sum_i v_i)^T`, flattened to D^2 numbers a candidate.
    - `"pairwise"`: `v_i^T K_ij v_j` with a kernel for every pair: one number a pair, the user's
      pairs once a request.

    Args:
        form: `"superposition"` or `"pairwise"`.

    Call arguments:
        inputs: `(user, candidates)`, float tensors `[R, F, D]` and `[R, N, G, D]`.

    Returns:
        `(user, candidates)`: `[R, 0]` and `[R, N, D^2]`, or `[R, P_user]` and
        `[R, N, P_candidate]`.

    Reference: Qu et al., 2016 (PNN), section III-C; Qu et al., 2018, kernel products.
    """

    def __init__(self, form: str = "superposition", **kwargs: Any):
        super().__init__(**kwargs)
        if form not in ("superposition", "pairwise"):
            raise ValueError(f"form must be 'superposition' or 'pairwise', got {form!r}.")
        self.form = form

    def build(self, input_shape: Any) -> None:
        """Creates the kernels of all pairs, where there are any."""
        user, candidates = (tf.TensorShape(shape) for shape in input_shape)
        num_user, num_items, width = int(user[1]), int(candidates[2]), int(user[2])
        if self.form == "pairwise":
            self._user_pairs = num_user * (num_user - 1) // 2
            pairs = self._user_pairs + num_user * num_items + num_items * (num_items - 1) // 2
            self.kernels = self.add_weight(name="kernels", shape=(pairs, width, width))
        super().build(input_shape)

    def call(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the products; see the class."""
        user, candidates = inputs
        width = user.shape[2]
        if self.form == "superposition":
            total = tf.reduce_sum(user, 1)[:, tf.newaxis] + tf.reduce_sum(candidates, 2)
            outer = total[..., tf.newaxis] * total[..., tf.newaxis, :]
            flat = tf.reshape(outer, tf.concat([tf.shape(total)[:2], [width * width]], axis=0))
            return tf.reduce_sum(user[..., :0], axis=1), flat
        left, right = upper_triangle(user.shape[1])
        of_user = _kernel_products(
            tf.gather(user, left, axis=1),
            tf.gather(user, right, axis=1),
            self.kernels[: self._user_pairs],
        )
        own_left, own_right = upper_triangle(candidates.shape[2])
        others = tf.repeat(user, candidates.shape[2], axis=1)[:, tf.newaxis]
        others = tf.repeat(others, tf.shape(candidates)[1], axis=1)
        items = tf.tile(candidates, [1, 1, user.shape[1], 1])
        of_candidates = _kernel_products(
            tf.concat([others, tf.gather(candidates, own_left, axis=2)], axis=2),
            tf.concat([items, tf.gather(candidates, own_right, axis=2)], axis=2),
            self.kernels[self._user_pairs :],
        )
        return of_user, of_candidates

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "form": self.form}


def _kernel_products(left: tf.Tensor, right: tf.Tensor, kernels: tf.Tensor) -> tf.Tensor:
    """`left_p^T K_p right_p` for every pair p."""
    return tf.reduce_sum(tf.einsum("...pd,pde->...pe", left, kernels) * right, axis=-1)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class PairAttention(tf.keras.layers.Layer):
    """AFM's pooling: a softmax over all pairs of fields weights their products.

        a_ij = softmax( h . ReLU(W (v_i * v_j) + b) ),   pooled = sum_{i<j} a_ij (v_i * v_j)

    The user's own pairs enter every candidate's softmax with the same logits, so their part of
    its denominator and of the weighted sum is made once a request:

        pooled = (e^(m_u - m) S_u + e^(m_c - m) S_c) / (e^(m_u - m) Z_u + e^(m_c - m) Z_c)

    with the largest logit m, the sums Z of exponentials and S of weighted products, each of the
    user's pairs and of the candidate's.

    Args:
        units: width A of the attention.
        dropout: rate on the weights while training, as in the paper.

    Call arguments:
        inputs: `(user, candidates)`, products of `FieldPairs`.
        training: enables dropout.

    Returns:
        float tensor `[R, N, D]`.

    Raises:
        ValueError: for units below 1.

    Reference: Xiao et al., 2017 (AFM), eqs. 5-6.
    """

    def __init__(self, units: int = 8, dropout: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1, got {units}.")
        self.units = units
        self.dropout = dropout
        self._hidden = tf.keras.layers.Dense(units, "relu")
        self._dropout = ResumableDropout(dropout)

    def build(self, input_shape: Any) -> None:
        """Creates h."""
        self.projection = self.add_weight(name="projection", shape=(self.units, 1))
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Returns the pooled products of every candidate; see the class."""
        if inputs[0].shape[1] == 0 and inputs[1].shape[2] == 0:
            return tf.zeros_like(tf.reduce_sum(inputs[1], axis=2))
        highest, total, weighted = zip(
            *(self._sums(products, training) for products in inputs), strict=True
        )
        top = tf.maximum(highest[0][:, tf.newaxis], highest[1])
        of_user = tf.exp(highest[0][:, tf.newaxis] - top)
        of_candidate = tf.exp(highest[1] - top)
        denominator = of_user * total[0][:, tf.newaxis] + of_candidate * total[1]
        pooled = of_user * weighted[0][:, tf.newaxis] + of_candidate * weighted[1]
        return pooled / denominator

    def _sums(self, products: tf.Tensor, training: bool | None) -> tuple[tf.Tensor, ...]:
        """Largest logit, sum of exponentials, and weighted sum over the pairs, `[..., 1 or D]`."""
        logits = project(self._hidden(products), self.projection)
        highest = tf.reduce_max(tf.stop_gradient(logits), axis=-2)
        exponentials = tf.exp(logits - highest[..., tf.newaxis, :])
        kept = self._dropout(exponentials, training=training)
        return highest, tf.reduce_sum(exponentials, -2), tf.reduce_sum(kept * products, -2)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "units": self.units, "dropout": self.dropout}
