"""DFN as printed, one candidate a row: what the shared request form is measured against.

Lookups, projections of behaviours, loss and optimiser are the package's own; the interactions and
the head are written down as the paper prints them, and every row repeats its user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import (
    ExternalFeedbackInteraction,
    InternalFeedbackInteraction,
    WideFMDeep,
)
from tfrec_feedback.layers.masking import length_mask
from tfrec_feedback.models import DFN

Tensors = dict[str, tf.Tensor]
_MASKED = -1e9


class NaiveInternal(InternalFeedbackInteraction):
    """The full attention over [target; behaviours] of every row, then the mean, then W_O."""

    def call(self, candidates: tf.Tensor, behaviours: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Takes one candidate a row: `[B, 1, D]` and `[B, T, D]`."""
        x = tf.concat([candidates, behaviours], axis=1)
        mask = length_mask(lengths + 1, tf.shape(x)[1])
        q, k, v = (
            self._heads(tf.tensordot(x, kernel, 1))
            for kernel in (self.query_kernel, self.key_kernel, self.value_kernel)
        )
        logits = tf.matmul(q, k, transpose_b=True) * self._scale
        attention = tf.nn.softmax(logits + (mask[:, tf.newaxis, tf.newaxis] - 1.0) * -_MASKED)
        rows = tf.transpose(tf.matmul(attention, v), [0, 2, 1, 3])
        rows = tf.reshape(rows, tf.shape(x)) * mask[..., tf.newaxis]
        mean = tf.reduce_sum(rows, axis=1) / tf.reduce_sum(mask, axis=1, keepdims=True)
        return tf.matmul(mean, self.output_kernel)[:, tf.newaxis]

    def _heads(self, x: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        x = tf.reshape(x, [shape[0], shape[1], self.num_heads, self._width // self.num_heads])
        return tf.transpose(x, [0, 2, 1, 3])


class NaiveExternal(ExternalFeedbackInteraction):
    """The network on `concat(g, u, g - u, g * u)` of every row and behaviour."""

    def call(self, instructors: tf.Tensor, behaviours: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Takes one candidate a row: `[B, 1, D]` and `[B, T, D]`."""
        u = behaviours
        g = tf.broadcast_to(instructors, tf.shape(u))
        inputs = tf.concat([g, u, g - u, g * u], axis=-1)
        hidden = tf.nn.relu(tf.tensordot(inputs, self.hidden_kernel, 1) + self.hidden_bias)
        scores = (tf.tensordot(hidden, self.score_kernel, 1) + self.score_bias)[..., 0]
        mask = length_mask(lengths, tf.shape(u)[1])
        weights = tf.nn.softmax(scores + (mask - 1.0) * -_MASKED) * mask
        return tf.matmul(weights[:, tf.newaxis], u)


class NaiveHead(WideFMDeep):
    """The first deep layer on the concatenation of all vectors of every row."""

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Takes one candidate a row, as the base class takes N = 1."""
        context, candidates, wide_context, wide_candidates = inputs
        vectors = tf.concat([context, candidates[:, 0]], axis=1)
        total = tf.reduce_sum(vectors, axis=1)
        factorized = 0.5 * (tf.square(total) - tf.reduce_sum(tf.square(vectors), axis=1))
        deep = tf.reshape(vectors, [-1, self.kernel.shape[0]])
        deep = tf.nn.relu(tf.matmul(deep, self.kernel) + self.bias)
        for layer in self._deeper:
            deep = layer(deep)
        wide = tf.concat([wide_context, wide_candidates[:, 0]], axis=-1)
        return tf.concat([wide, factorized, deep], axis=-1)[:, tf.newaxis]


class NaiveDFN(DFN):
    """DFN on rows (`one_candidate_a_row`), in its default form; takes over a DFN's weights."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.wide_fm_deep = NaiveHead.from_config(self.wide_fm_deep.get_config())

    def _build_interactions(self, given: dict[str, Any]) -> None:
        super()._build_interactions(given)
        self.internal_interactions = {
            name: NaiveInternal.from_config(layer.get_config())
            for name, layer in self.internal_interactions.items()
        }
        self.external_interactions = {
            name: NaiveExternal.from_config(layer.get_config())
            for name, layer in self.external_interactions.items()
        }


def naive_copy(model: DFN) -> NaiveDFN:
    """Returns the naive model with the weights of a built one."""
    naive = NaiveDFN.from_config(model.get_config())
    naive.build_weights()
    naive.set_weights(model.get_weights())
    return naive


def one_candidate_a_row(encoded: Tensors, labels: Tensors, weights: tf.Tensor) -> Any:
    """Repeats the user's side for every candidate: R requests of N become R * N requests of 1.

    Args:
        encoded: output of `FeatureEncoder`; all N candidates of every request are valid.
        labels: `{task: [R, N]}`.
        weights: `[R, N]`.

    Returns:
        `(encoded, labels, weights)`, N = 1.
    """
    count = encoded["candidate_rows"].shape[1]
    rows = {}
    for name, value in encoded.items():
        if name.startswith("candidate_"):
            rows[name] = tf.reshape(value, [-1, 1, value.shape[-1]])
        else:
            rows[name] = tf.repeat(value, count, axis=0)
    rows["num_candidates"] = tf.ones_like(rows["num_candidates"])
    flat = {task: tf.reshape(value, [-1, 1]) for task, value in labels.items()}
    return rows, flat, tf.reshape(weights, [-1, 1])
