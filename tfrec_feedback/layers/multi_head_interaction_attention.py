"""DUMN's attention: behaviours among themselves, once a request, then the target's pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import MASKED_LOGIT, length_mask, masked_softmax
from tfrec_feedback.layers.products import batched_product, project
from tfrec_feedback.layers.widths import check_widths


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class MultiHeadInteractionAttention(tf.keras.layers.Layer):
    """Self-attention over behaviours, pooled by an attention of user, candidate and behaviour.

    A head h owns a block of *input* columns e_h `[T, E / H]` of the behaviours:

        head_h  = softmax(e_h W_Q,h (e_h W_K,h)^T / scale) e_h W_V,h
        O       = concat_h(head_h) W_F
        alpha_j = ReLU(concat(user, candidate, o_j) W)
        f       = sum_j softmax(alpha)_j o_j

    without biases. O does not depend on the candidate and is computed once a request. W is split
    by rows, so that a candidate costs one scalar before the ReLU and one weighted sum. Two facts
    of the printed form: where all `alpha_j > 0` the candidate cancels in the softmax, and where
    none is, the weights are equal. `attention_hidden` makes the attention a joint one.

    Padded behaviours take no part, whatever they hold. Without behaviours f is exactly 0, and so
    are all gradients.

    Args:
        num_heads: H; divides E.
        scale: `"max_length"` divides logits by sqrt(T_max) as printed, a constant and not the
            number of valid behaviours; `"head"` by sqrt(E / H).
        max_length: T_max; by default the static T of the behaviours. Give it where requests of
            different T must agree. Without use for scale `"head"`.
        attention_hidden: widths of ReLU layers (with biases) between the concatenation and
            alpha; none as printed. Costs a tensor `[R, N, T, attention_hidden[0]]`.

    Call arguments:
        user: float tensor `[R, U]`; U may be 0.
        candidates: float tensor `[R, N, I]`; I may be 0.
        behaviours: float tensor `[R, T, E]`.
        lengths: integer tensor `[R]`, valid behaviours; the first ones count.

    Returns:
        float tensor `[R, N, E]`.

    Raises:
        ValueError: for wrong options, when num_heads does not divide E, and when T_max is unknown.

    Example:
        >>> layer = MultiHeadInteractionAttention(num_heads=2)
        >>> user, candidates, behaviours = tf.ones([1, 6]), tf.ones([1, 3, 5]), tf.ones([1, 7, 4])
        >>> layer(user, candidates, behaviours, tf.constant([2])).shape
        TensorShape([1, 3, 4])

    Reference: Bian et al., 2021 (DUMN), multi-head interaction attention.
    """

    def __init__(
        self,
        num_heads: int,
        scale: str = "max_length",
        max_length: int | None = None,
        attention_hidden: Sequence[int] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {num_heads}.")
        if scale not in ("max_length", "head"):
            raise ValueError(f"scale must be 'max_length' or 'head', got {scale!r}.")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 or None, got {max_length}.")
        if attention_hidden:
            check_widths("attention_hidden", attention_hidden, (36,))
        self.num_heads = num_heads
        self.scale = scale
        self.max_length = max_length
        self.attention_hidden = tuple(attention_hidden)
        self._self_attention = _SelfAttention(num_heads, name="self_attention")
        self._target_attention = _TargetAttention(self.attention_hidden, name="target_attention")

    def call(
        self, user: tf.Tensor, candidates: tf.Tensor, behaviours: tf.Tensor, lengths: tf.Tensor
    ) -> tf.Tensor:
        """Returns one vector a candidate; see the class."""
        candidates = tf.convert_to_tensor(candidates, user.dtype)
        behaviours = tf.convert_to_tensor(behaviours, user.dtype)
        mask = length_mask(lengths, tf.shape(behaviours)[1])
        behaviours = tf.where(mask[..., tf.newaxis] > 0.0, behaviours, 0.0)
        attended = self._self_attention(behaviours, mask, self._divisor(behaviours))
        weights = masked_softmax(
            self._target_attention((user, candidates, attended)), mask[:, tf.newaxis]
        )
        return batched_product(weights, attended)

    def _divisor(self, behaviours: tf.Tensor) -> float:
        """What logits of the self-attention are divided by."""
        if self.scale == "head":
            return (behaviours.shape[-1] / self.num_heads) ** 0.5
        max_length = behaviours.shape[1] if self.max_length is None else self.max_length
        if max_length is None:
            raise ValueError(
                "scale='max_length' needs a constant length: behaviours have no static length "
                f"(shape {behaviours.shape}). Pass max_length, or use scale='head'."
            )
        return max(max_length, 1) ** 0.5

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "scale": self.scale,
            "max_length": self.max_length,
            "attention_hidden": list(self.attention_hidden),
        }


class _SelfAttention(tf.keras.layers.Layer):
    """O of `MultiHeadInteractionAttention`: zero-padded behaviours `[R, T, E]` to `[R, T, E]`.

    Rows of padded behaviours are finite garbage, for the caller to mask.
    """

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape: Any) -> None:
        """Creates W_Q, W_K and W_V, `[H, E / H, E / H]`, and W_F, `[E, E]`."""
        width = int(tf.TensorShape(input_shape)[-1])
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width: got num_heads={self.num_heads} for width "
                f"{width}."
            )
        self._head_width = width // self.num_heads
        shape = (self.num_heads, self._head_width, self._head_width)
        # Glorot counts H as part of the fans; this is Glorot of each head's own matrix.
        glorot = {"mode": "fan_avg", "distribution": "uniform", "scale": float(self.num_heads)}
        self.query_kernel, self.key_kernel, self.value_kernel = (
            self.add_weight(
                name=f"{name}_kernel",
                shape=shape,
                initializer=tf.keras.initializers.VarianceScaling(**glorot),
            )
            for name in ("query", "key", "value")
        )
        self.output_kernel = self.add_weight(name="output_kernel", shape=(width, width))
        super().build(input_shape)

    def call(self, behaviours: tf.Tensor, mask: tf.Tensor, divisor: float) -> tf.Tensor:
        """Returns what each behaviour sees of the others; see the class."""
        heads, width = self.num_heads, self._head_width
        shape = tf.shape(behaviours)
        by_head = [heads, shape[0], shape[1], width]
        columns = tf.reshape(behaviours, [shape[0], shape[1], heads, width])
        columns = tf.transpose(columns, [2, 0, 1, 3])  # [H, R, T, d]

        # Products of kernels are small: W_Q W_K^T on one side saves projecting the keys, and
        # W_V W_F after the attention saves projecting the values.
        similarity = batched_product(self.query_kernel, self.key_kernel, transpose_b=True) / divisor
        queries = batched_product(tf.reshape(columns, [heads, -1, width]), similarity)
        logits = batched_product(tf.reshape(queries, by_head), columns, transpose_b=True)
        logits += ((mask - 1.0) * -MASKED_LOGIT)[:, tf.newaxis]
        seen = batched_product(tf.nn.softmax(logits), columns)

        output_kernel = tf.reshape(self.output_kernel, [heads, width, heads * width])
        value_output = batched_product(self.value_kernel, output_kernel)  # [H, d, E]
        seen = tf.reshape(tf.transpose(seen, [1, 2, 0, 3]), shape)
        return project(seen, tf.reshape(value_output, [heads * width, heads * width]))


class _TargetAttention(tf.keras.layers.Layer):
    """alpha of `MultiHeadInteractionAttention`.

    Takes `(user [R, U], candidates [R, N, I], attended [R, T, E])`, returns `[R, N, T]`.
    """

    def __init__(self, hidden: tuple[int, ...], **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = hidden
        self._deeper = [tf.keras.layers.Dense(units, "relu") for units in hidden[1:]]
        if hidden:
            self._deeper.append(tf.keras.layers.Dense(1, "relu", use_bias=False))

    def build(self, input_shape: Any) -> None:
        """Creates the first kernel, `[U + I + E, k]`, k = 1 without hidden layers."""
        rows = sum(int(tf.TensorShape(shape)[-1]) for shape in input_shape)
        units = self.hidden[0] if self.hidden else 1
        self.kernel = self.add_weight(name="kernel", shape=(rows, units))
        if self.hidden:
            self.bias = self.add_weight(name="bias", shape=(units,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns a non-negative logit for every candidate and behaviour; see the class."""
        widths = [tensor.shape[-1] for tensor in inputs]
        of_user, of_candidates, of_attended = (
            project(tensor, kernel)
            for tensor, kernel in zip(inputs, tf.split(self.kernel, widths), strict=True)
        )
        if not self.hidden:  # [R, N, 1] + [R, 1, T]
            of_target = of_user[:, tf.newaxis] + of_candidates
            return tf.nn.relu(of_target + tf.linalg.matrix_transpose(of_attended))
        of_target = (of_user + self.bias)[:, tf.newaxis] + of_candidates
        logits = tf.nn.relu(of_target[:, :, tf.newaxis] + of_attended[:, tf.newaxis])
        for layer in self._deeper:
            logits = layer(logits)
        return logits[..., 0]
