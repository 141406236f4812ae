"""DMT's transformer: a history is encoded once, and decoded for every candidate."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import length_mask, masked_softmax
from tfrec_feedback.layers.products import batched_product, project


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class InterestTransformer(tf.keras.layers.Layer):
    """Reads one history for every candidate with an encoder and a decoder of one block each.

    With events x_j and a candidate t, both times sqrt(D), and a learned vector p for how many
    events ago something happened (0 is the most recent event, so neither padding nor truncation
    shifts it),

        e   = x + p
        e   = LN(e + MHA(e, e, e));     enc = LN(e + FFN(e))
        d   = LN(t + MHA(t, enc, enc)); out = LN(d + FFN(d))

    The encoder never sees the candidate: it, and the decoder's keys and values, are computed once
    a request. Events are ragged, so that padding is a key of no one and costs nothing outside the
    attention. Without events MHA is exactly 0: the interest is the decoder's residual path.

    Heads are joined by a matrix W_O and projections have no bias, as in Vaswani et al.; the
    authors' code has biases in place of W_O.

    Args:
        num_heads: H; divides D.
        max_length: how many positions are told apart; older events share the oldest.
        ffn_multiplier: the FFN has this many times D hidden ReLU units.

    Call arguments:
        inputs: `(candidates, events)`: float tensor `[R, N, D]` and ragged `[R, (n), D]`, oldest
            event first.

    Returns:
        float tensor `[R, N, D]`.

    Raises:
        ValueError: when the heads do not divide D, or an argument is below 1.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths(tf.ones([3, 8]), [3, 0])
        >>> layer = InterestTransformer(num_heads=4, max_length=30)
        >>> layer((tf.ones([2, 5, 8]), events)).shape
        TensorShape([2, 5, 8])

    Reference: Gu et al., 2020 (DMT), CIKM; Vaswani et al., 2017, Attention Is All You Need.
    """

    def __init__(
        self, num_heads: int = 4, max_length: int = 50, ffn_multiplier: int = 4, **kwargs: Any
    ):
        super().__init__(**kwargs)
        given = {"num_heads": num_heads, "max_length": max_length, "ffn_multiplier": ffn_multiplier}
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.num_heads = num_heads
        self.max_length = max_length
        self.ffn_multiplier = ffn_multiplier
        self._encoder = _AttentionBlock(num_heads, ffn_multiplier, name="encoder")
        self._decoder = _AttentionBlock(num_heads, ffn_multiplier, name="decoder")

    def build(self, input_shape: Any) -> None:
        """Creates the positions `[max_length, D]` and both blocks."""
        width = int(tf.TensorShape(input_shape[0])[-1])
        self._scale = width**0.5
        self.positions = self.add_weight(name="positions", shape=(self.max_length, width))
        self._encoder.build((None, None, width))
        self._decoder.build((None, None, width))
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the interest of every candidate; see the class."""
        candidates, events = inputs
        encoded = self.encode(events)
        memory, target = encoded.to_tensor(), candidates * self._scale
        mask = length_mask(encoded.row_lengths(), tf.shape(memory)[1])
        return self._decoder.refine(target, self._decoder.attend(target, memory, mask))

    def encode(self, events: tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns the encoder's output, a vector an event: ragged `[R, (n), D]`.

        Args:
            events: ragged float tensor `[R, (n), D]`, oldest first.
        """
        rows = events.flat_values
        # The most recent event of a request is its last, whose end row_splits knows.
        ends = tf.gather(events.row_splits, events.value_rowids() + 1)
        ages = ends - tf.range(tf.shape(rows, ends.dtype)[0], dtype=ends.dtype) - 1
        ages = tf.minimum(ages, self.max_length - 1)
        rows = rows * self._scale + tf.gather(self.positions, ages)
        padded = events.with_flat_values(rows).to_tensor()
        mask = length_mask(events.row_lengths(), tf.shape(padded)[1])
        attended = self._encoder.attend(padded, padded, mask)
        valid = tf.gather_nd(attended, tf.where(mask > 0.0))
        return events.with_flat_values(self._encoder.refine(rows, valid))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "max_length": self.max_length,
            "ffn_multiplier": self.ffn_multiplier,
        }


class _AttentionBlock(tf.keras.layers.Layer):
    """The weights of a transformer block and its two halves: `attend`, then `refine`.

    Halves, because attention needs padded rows and all that follows does not.

    Args:
        num_heads: H; divides D.
        ffn_multiplier: the FFN has this many times D hidden ReLU units.
    """

    def __init__(self, num_heads: int, ffn_multiplier: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.ffn_multiplier = ffn_multiplier
        self._norms = [tf.keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]

    def build(self, input_shape: Any) -> None:
        """Creates W_Q, W_K, W_V and W_O, each `[D, D]`, the FFN and two normalisations."""
        width = int(tf.TensorShape(input_shape)[-1])
        if width % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width of an event: got num_heads={self.num_heads} for "
                f"width {width}. The width is embedding_dim times the features of an event; change "
                "one of these."
            )
        self._width = width
        square = {"shape": (width, width)}
        self.query_kernel = self.add_weight(name="query_kernel", **square)
        self.key_kernel = self.add_weight(name="key_kernel", **square)
        self.value_kernel = self.add_weight(name="value_kernel", **square)
        self.output_kernel = self.add_weight(name="output_kernel", **square)
        self._hidden = tf.keras.layers.Dense(self.ffn_multiplier * width, "relu", name="hidden")
        self._narrow = tf.keras.layers.Dense(width, name="narrow")
        self._hidden.build((None, width))
        self._narrow.build((None, self.ffn_multiplier * width))
        for norm in self._norms:
            norm.build((None, width))
        super().build(input_shape)

    def attend(self, queries: tf.Tensor, memory: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Returns the joined heads before W_O, `[R, Q, D]`; 0 where no row is valid.

        Args:
            queries: float tensor `[R, Q, D]`.
            memory: float tensor `[R, T, D]`.
            mask: float tensor `[R, T]`, 1 where valid.
        """
        scale = (self._width / self.num_heads) ** -0.5
        (query,) = self._heads(queries, [self.query_kernel * scale])
        key, value = self._heads(memory, [self.key_kernel, self.value_kernel])
        logits = batched_product(query, key, transpose_b=True)  # [R, H, Q, T]
        weights = masked_softmax(logits, mask[:, tf.newaxis, tf.newaxis])
        joined = tf.transpose(batched_product(weights, value), [0, 2, 1, 3])
        return tf.reshape(joined, tf.shape(queries))

    def refine(self, rows: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
        """Returns `LN(y + FFN(y))` of `y = LN(rows + attended W_O)`, both `[..., D]`."""
        first, second = self._norms
        # Keras' normalisation remembers the rank it was built for; here it is always 2.
        flat = tf.reshape(rows + project(attended, self.output_kernel), [-1, self._width])
        flat = first(flat)
        flat = second(flat + self._narrow(self._hidden(flat)))
        return tf.reshape(flat, tf.shape(rows))

    def _heads(self, rows: tf.Tensor, kernels: list[Any]) -> list[tf.Tensor]:
        """Projects rows by several kernels at once: `[R, Q, D]` to `[R, H, Q, D / H]` each."""
        projected = project(rows, tf.concat(kernels, axis=1))
        heads, width = self.num_heads, self._width // self.num_heads
        shape = tf.concat([tf.shape(rows)[:2], [len(kernels), heads, width]], axis=0)
        return tf.unstack(tf.transpose(tf.reshape(projected, shape), [2, 0, 3, 1, 4]))
