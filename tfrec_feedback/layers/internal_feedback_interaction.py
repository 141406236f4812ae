"""DFN's internal feedback interaction: self-attention of the target with one kind of feedback."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import MASKED_LOGIT, length_mask
from tfrec_feedback.layers.products import batched_product


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class InternalFeedbackInteraction(tf.keras.layers.Layer):
    """Multi-head self-attention over [target; behaviours], averaged over its n + 1 rows.

    For one candidate t and behaviours x_1..x_n the printed form is, a head h,

        X   = [t; x_1; ...; x_n]
        A_h = softmax(X W_Q,h (X W_K,h)^T / scale)
        f   = mean over rows of concat_h(A_h X W_V,h), times W_O

    Scoring N candidates of one request that way repeats the n x n attention N times. Here it is
    computed once a request: appending the target's key to the softmax of row i moves that row by
    `lam_i (v_t - o_i)`, where o_i is the row without the target and `lam_i = sigmoid(q_i . k_t -
    logsumexp_j q_i . k_j)` the weight the target takes. Only the target's own row is a softmax a
    candidate. The result is the same real-number function, not an approximation.

    Padded behaviours take no part. Without behaviours the layer returns `t W_V W_O`.

    Args:
        num_heads: H; divides D.
        attention_scale: `"model"` divides by sqrt(D) as printed, `"head"` by sqrt(D / H).
        pooling: `"mean"` over the n + 1 valid rows as printed, or `"sum"` (official code).
        use_output: multiplies by W_O as printed.
        ffn_multiplier: 0 as printed; k > 0 passes every row through a two-layer network of kD
            ReLU units before pooling, as the official code does (k = 4). Rows must then be
            formed for every candidate, so nothing after the projections is shared.

    Call arguments:
        candidates: float tensor `[R, N, D]`.
        behaviours: float tensor `[R, T, D]`.
        lengths: integer tensor `[R]`, valid behaviours; the first ones count.

    Returns:
        float tensor `[R, N, D]`.

    Raises:
        ValueError: for wrong options, or when num_heads does not divide D.

    Example:
        >>> layer = InternalFeedbackInteraction(num_heads=2)
        >>> layer(tf.ones([1, 3, 4]), tf.ones([1, 5, 4]), tf.constant([2])).shape
        TensorShape([1, 3, 4])

    Reference: Xie et al., 2020 (DFN), eqs. 1-4.
    """

    def __init__(
        self,
        num_heads: int,
        attention_scale: str = "model",
        pooling: str = "mean",
        use_output: bool = True,
        ffn_multiplier: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if attention_scale not in ("model", "head"):
            raise ValueError(f"attention_scale must be 'model' or 'head', got {attention_scale!r}.")
        if pooling not in ("mean", "sum"):
            raise ValueError(f"pooling must be 'mean' or 'sum', got {pooling!r}.")
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {num_heads}.")
        if ffn_multiplier < 0:
            raise ValueError(f"ffn_multiplier must not be negative, got {ffn_multiplier}.")
        self.num_heads = num_heads
        self.attention_scale = attention_scale
        self.pooling = pooling
        self.use_output = use_output
        self.ffn_multiplier = ffn_multiplier

    def build(self, input_shape: Any) -> None:
        """Creates W_Q, W_K, W_V and W_O, each `[D, D]`; head h owns the h-th block of columns."""
        width = int(tf.TensorShape(input_shape)[-1])
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width: got num_heads={self.num_heads} for width "
                f"{width}."
            )
        self._width = width
        heads = self.num_heads if self.attention_scale == "head" else 1
        self._scale = (width / heads) ** -0.5
        self.query_kernel = self.add_weight(name="query_kernel", shape=(width, width))
        self.key_kernel = self.add_weight(name="key_kernel", shape=(width, width))
        self.value_kernel = self.add_weight(name="value_kernel", shape=(width, width))
        if self.use_output:
            self.output_kernel = self.add_weight(name="output_kernel", shape=(width, width))
        if self.ffn_multiplier:
            self._hidden = tf.keras.layers.Dense(self.ffn_multiplier * width, "relu", name="hidden")
            self._narrow = tf.keras.layers.Dense(width, name="narrow")
            self._hidden.build((None, width))
            self._narrow.build((None, self.ffn_multiplier * width))
        super().build(input_shape)

    def call(self, candidates: tf.Tensor, behaviours: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Returns one vector a candidate; see the class."""
        behaviours = tf.convert_to_tensor(behaviours, candidates.dtype)
        mask = length_mask(lengths, tf.shape(behaviours)[1])
        q, k, v = self._project(behaviours)  # [R, H, T, d]
        q_t, k_t, v_t = self._project(candidates)  # [R, H, N, d]
        row_mask = mask[:, tf.newaxis, tf.newaxis, :]  # over behaviours, [R, 1, 1, T]
        hidden_key = (row_mask - 1.0) * -MASKED_LOGIT  # added to logits: 0, or far below

        # Once a request: the attention among behaviours, without the target.
        attention, log_mass = _softmax(batched_product(q, k, transpose_b=True) + hidden_key)
        log_mass = log_mass[:, :, tf.newaxis, :]  # [R, H, 1, T]

        # A candidate: how much of every row the target's key takes ...
        target_share = tf.sigmoid(batched_product(k_t, q, transpose_b=True) - log_mass) * row_mask
        # ... and the target's own row, a softmax over itself and the behaviours.
        own = tf.concat(
            [
                tf.reduce_sum(q_t * k_t, axis=-1, keepdims=True),
                batched_product(q_t, k, transpose_b=True) + hidden_key,
            ],
            axis=-1,
        )
        own = tf.nn.softmax(own)  # the target itself is always a valid key
        if self.ffn_multiplier:
            rows = batched_product(attention, v)
            pooled = self._pool_transformed(rows, v, v_t, target_share, own, row_mask)
        else:
            # The sum over rows, less the target's share, is a weight for every value: rows are
            # never formed.
            weights = batched_product(row_mask - target_share, attention)
            pooled = batched_product(weights + own[..., 1:], v)
            of_target = tf.reduce_sum(target_share, axis=-1, keepdims=True) + own[..., :1]
            pooled = self._merge_heads(pooled + of_target * v_t)
        if self.pooling == "mean":
            pooled /= tf.reduce_sum(mask, axis=1)[:, tf.newaxis, tf.newaxis] + 1.0
        return tf.tensordot(pooled, self.output_kernel, 1) if self.use_output else pooled

    def _project(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns queries (scaled), keys and values, each `[R, H, T, d]`."""
        kernel = tf.concat(
            [self.query_kernel * self._scale, self.key_kernel, self.value_kernel], axis=1
        )
        heads, width = self.num_heads, self._width // self.num_heads
        projected = tf.tensordot(x, kernel, 1)
        shape = tf.shape(projected)
        projected = tf.reshape(projected, [shape[0], shape[1], 3, heads, width])
        q, k, v = tf.unstack(tf.transpose(projected, [2, 0, 3, 1, 4]))
        return q, k, v

    def _merge_heads(self, x: tf.Tensor) -> tf.Tensor:
        """Concatenates heads: `[R, H, ..., d]` to `[R, ..., D]`."""
        order = [0, *range(2, len(x.shape) - 1), 1, len(x.shape) - 1]
        x = tf.transpose(x, order)
        return tf.reshape(x, tf.concat([tf.shape(x)[:-2], [self._width]], axis=0))

    def _pool_transformed(
        self,
        rows: tf.Tensor,
        v: tf.Tensor,
        v_t: tf.Tensor,
        target_share: tf.Tensor,
        own: tf.Tensor,
        row_mask: tf.Tensor,
    ) -> tf.Tensor:
        """Sums the n + 1 rows after a position-wise network, which no candidate can share."""
        share = target_share[..., tf.newaxis]
        of_rows = rows[:, :, tf.newaxis] + share * (
            v_t[:, :, :, tf.newaxis] - rows[:, :, tf.newaxis]
        )
        of_target = own[..., :1] * v_t + batched_product(own[..., 1:], v)
        target_first = tf.concat([of_target[:, :, :, tf.newaxis], of_rows], axis=3)
        transformed = self._narrow(self._hidden(self._merge_heads(target_first)))
        # The target's own row is always valid, even where no request has a behaviour (T = 0).
        valid = tf.pad(row_mask, [[0, 0], [0, 0], [0, 0], [1, 0]], constant_values=1.0)[:, 0]
        return tf.reduce_sum(transformed * valid[..., tf.newaxis], axis=2)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "attention_scale": self.attention_scale,
            "pooling": self.pooling,
            "use_output": self.use_output,
            "ffn_multiplier": self.ffn_multiplier,
        }


@tf.custom_gradient
def _softmax(logits: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Any]:
    """Softmax and log-sum-exp of the last axis from one exponential, with a joint gradient.

    Args:
        logits: `[..., T]`; a row without valid key gives finite garbage, for its caller to mask.

    Returns:
        `[..., T]` and `[...]`.
    """
    weights = tf.nn.softmax(logits)
    # The largest weight is at least 1 / T, so its logarithm is safe.
    log_mass = tf.reduce_max(logits, axis=-1) - tf.math.log(tf.reduce_max(weights, axis=-1))

    def gradient(of_weights: tf.Tensor, of_log_mass: tf.Tensor) -> tf.Tensor:
        centre = of_log_mass - tf.reduce_sum(weights * of_weights, axis=-1)
        return weights * (of_weights + centre[..., tf.newaxis])

    return (weights, log_mass), gradient
