"""DIN's local activation unit: how much each past event says about a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.dice import Activation
from tfrec_feedback.layers.masking import masked_softmax, repeat_rows, sum_rows
from tfrec_feedback.layers.padded_attention import PaddedEvents, dice_scores
from tfrec_feedback.layers.pair_layer import Kernels, pre_activations
from tfrec_feedback.layers.products import batched_product, project
from tfrec_feedback.layers.widths import check_widths


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class ActivationUnit(tf.keras.layers.Layer):
    """Weights every event by a small network of it and the candidate, and adds the events up.

        a_j = MLP([q, k_j, q - k_j, q * k_j]),   pooled = sum_j a_j k_j

    Weights are not normalised, as printed: their sum says how much of the user's interest the
    candidate meets. The first layer is linear in its input, so with its kernel cut in four,

        [q, k, q - k, q * k] W = q (W_q + W_d) + k (W_k - W_d) + (q * k) W_p

    the first product is made once a candidate, the second once an event of a request, and only
    the third once a pair. Padded events are never looked at: events are ragged, or, in steps that
    are compiled and need static shapes, `PaddedEvents`, with the same result.

    Args:
        units: hidden widths of the network.
        activation: `"dice"`, or any of Keras.
        softmax: normalises the weights over the events of a request.

    Call arguments:
        inputs: `(candidates, events)`: float tensor `[R, N, D]` and ragged `[R, (n), D]`, or
            `PaddedEvents` of `[R, T, D]`.
        mask: `[R, N]`, 1 where a candidate is valid; Dice's statistics need it in training.
        training: enables Dice's batch statistics.

    Returns:
        float tensor `[R, N, D]`; 0 for a request without events.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths(tf.ones([3, 4]), [3, 0])
        >>> ActivationUnit((8,))((tf.ones([2, 5, 4]), events)).shape
        TensorShape([2, 5, 4])

    Reference: Zhou et al., 2018 (DIN), eq. 2 and figure 2.
    """

    def __init__(
        self,
        units: Sequence[int] = (36,),
        activation: Any = "dice",
        softmax: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_widths("units", units, (36,))
        self.units = tuple(units)
        self.activation = activation
        self.softmax = softmax
        self._deeper = [tf.keras.layers.Dense(width) for width in self.units[1:]]
        self._activations = [Activation(activation) for _ in self.units]
        self._score = tf.keras.layers.Dense(1)

    def build(self, input_shape: Any) -> None:
        """Creates the first layer; its kernel's rows are those of q, k, q - k and q * k."""
        width = int(tf.TensorShape(input_shape[0])[-1])
        self.kernel = self.add_weight(name="kernel", shape=(4 * width, self.units[0]))
        self.bias = self.add_weight(name="bias", shape=(self.units[0],), initializer="zeros")
        super().build(input_shape)

    def call(
        self, inputs: Any, mask: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        """Returns the pooled events of every candidate; see the class."""
        candidates, events = inputs
        if isinstance(events, PaddedEvents):
            weights = self._padded_weights(candidates, events, mask, training)
            return batched_product(tf.transpose(weights, [0, 2, 1]), events.flat_values)
        keys, requests = events.flat_values, events.value_rowids()
        mask = None if mask is None or not training else tf.gather(mask, requests)
        weights = self._after_first(self._first(candidates, keys, requests), mask, training)
        if self.softmax:
            weights = segment_softmax(weights, requests, events.nrows())
        weighted = tf.expand_dims(weights, -1) * tf.expand_dims(keys, 1)
        return sum_rows(weighted, requests, events.nrows())

    def _first(self, candidates: tf.Tensor, keys: tf.Tensor, requests: tf.Tensor) -> tf.Tensor:
        """The first layer before its activation, for every event and candidate, `[V, N, U]`."""
        kernels = self._kernels()
        query = project(candidates, kernels.of_query) + kernels.bias
        key = project(keys, kernels.of_key)
        products = repeat_rows(candidates, requests) * tf.expand_dims(keys, 1)
        shared = repeat_rows(query, requests) + tf.expand_dims(key, 1)
        return shared + project(products, kernels.of_product)

    def _kernels(self) -> Kernels:
        of_query, of_key, of_difference, of_product = tf.split(self.kernel, 4)
        return Kernels(of_query + of_difference, of_key - of_difference, of_product, self.bias)

    def _after_first(self, hidden: tf.Tensor, mask: Any, training: bool | None) -> tf.Tensor:
        """The weight of every pair, by what the first layer made of it: `[..., U]` to `[...]`."""
        for layer, activation in zip([None, *self._deeper], self._activations, strict=True):
            hidden = hidden if layer is None else layer(hidden)
            hidden = activation((hidden, mask), training=training)
        return tf.squeeze(self._score(hidden), -1)

    def _padded_weights(
        self, candidates: tf.Tensor, events: PaddedEvents, mask: Any, training: bool | None
    ) -> tf.Tensor:
        """The weight of every pair, `[R, T, N]`; garbage at padded events."""
        if mask is None:
            mask = tf.ones(tf.shape(candidates)[:2])
        kernels, dice = self._kernels(), self._activations[0].dice
        if training and dice is not None and not self._deeper:
            output = self._score.kernel[:, 0]
            weights = dice_scores(candidates, events, mask, kernels, dice, output)
            weights += self._score.bias
        else:
            s = pre_activations(candidates, events.flat_values, events.valid, kernels)
            pairs = events.valid[..., tf.newaxis] * mask[:, tf.newaxis]
            s = tf.reshape(s, tf.concat([tf.shape(pairs), [self.units[0]]], 0))
            weights = self._after_first(s, pairs, training)
        if not self.softmax:
            return weights
        across = tf.transpose(weights, [0, 2, 1])
        return tf.transpose(masked_softmax(across, events.valid[:, tf.newaxis]), [0, 2, 1])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": self.activation,
            "softmax": self.softmax,
        }


def segment_softmax(logits: tf.Tensor, segments: tf.Tensor, num_segments: tf.Tensor) -> tf.Tensor:
    """Softmax over the first axis, within each segment.

    Args:
        logits: float tensor `[V, N]`.
        segments: integer tensor `[V]`, not falling: the segment of every row.
        num_segments: how many there are.

    Example:
        >>> segment_softmax(tf.constant([[0.7], [0.2], [9.0]]), tf.constant([0, 0, 1]), 2).numpy()
        array([[0.62245935],
               [0.37754068],
               [1.        ]], dtype=float32)
    """
    highest = tf.math.unsorted_segment_max(tf.stop_gradient(logits), segments, num_segments)
    exponentials = tf.exp(logits - tf.gather(highest, segments))
    total = sum_rows(exponentials, segments, num_segments)
    return exponentials / repeat_rows(total, segments)
