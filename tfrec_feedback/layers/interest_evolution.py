"""DIEN's two layers of interest, and the loss that teaches the first one what comes next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.activation_unit import segment_softmax
from tfrec_feedback.layers.attentional_gru import AttentionalGRU, positions
from tfrec_feedback.layers.masking import repeat_rows
from tfrec_feedback.layers.products import project
from tfrec_feedback.layers.split_mlp import SplitMLP


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class InterestEvolution(tf.keras.layers.Layer):
    """Follows how the interest that a candidate meets has evolved.

        a_t = softmax_t(h_t W q),   result = the last state of an AUGRU over h_t with weights a_t

    What depends on the events alone, h_t W and the AUGRU's input products, is made once a request.
    Nothing is padded: the cost grows with the number of events.

    Args:
        units: U, width of the AUGRU's state.

    Call arguments:
        inputs: `(candidates, states)`: float tensor `[R, N, D]`, and the interests after every
            event, ragged `[R, (n), E]`.

    Returns:
        float tensor `[R, N, U]`; 0 for a request without events.

    Example:
        >>> states = tf.RaggedTensor.from_row_lengths(tf.ones([6, 3]), [4, 2])
        >>> InterestEvolution(8)((tf.ones([2, 5, 4]), states)).shape
        TensorShape([2, 5, 8])

    Reference: Zhou et al., 2019 (DIEN), eq. 8 and 16 to 17.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self._evolution = AttentionalGRU(units, name="augru")

    def build(self, input_shape: Any) -> None:
        """Creates W of the attention."""
        candidates, states = (int(tf.TensorShape(shape)[-1]) for shape in input_shape[:2])
        self.attention_kernel = self.add_weight(name="attention_kernel", shape=(states, candidates))
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the interest of every candidate; see the class."""
        _, states = inputs
        return self._evolution((states, self.attention(inputs)))

    def attention(self, inputs: Any) -> tf.Tensor:
        """Returns the weight of every event for every candidate, `[V, N]`; see the class."""
        candidates, states = inputs
        requests = states.value_rowids()
        keys = project(states.flat_values, self.attention_kernel)
        logits = tf.einsum("vd,vnd->vn", keys, repeat_rows(candidates, requests))
        return segment_softmax(logits, requests, states.nrows())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "units": self.units}


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class NextEventLoss(tf.keras.layers.Layer):
    """DIEN's auxiliary loss: an interest must tell the user's next event from a negative one.

        mean over pairs of  CE(1, net([h_t, x_{t+1}])) + CE(0, net([h_t, x^-_{t+1}]))

    A pair is an interest h_t and the event x_{t+1} that followed, so a history of n events has
    n - 1 of them. All pairs of a batch weigh alike. Negatives are

    - with `rejected` events, such as the user's exposures without a click: one of his own. The
      k-th most recent pair takes the k-th most recent rejected event, starting over where those
      are fewer: negatives are as recent as the events they are told from. The pairs of a user
      without any have the first term alone, so that the loss is a function of each user's own
      data and nothing is drawn at random.
    - otherwise: drawn evenly from the events of the batch's other requests, with replacement.
      Where no other request has any, the second term is left out.

    The first layer's product of h_t is shared by both terms. Only valid pairs are computed.

    Args:
        units: hidden widths of the network.
        activation: of the hidden layers; sigmoid as in the code of the authors, whose batch
            normalisation of the input is left out.
        seed: default: drawn from Python's `random`, which `tf.keras.utils.set_random_seed` seeds.
            Like `ResumableDropout`, draws are a function of it and of a counted call.

    Call arguments:
        inputs: `(states, events)` or `(states, events, rejected)`: ragged float tensors, the
            interests after every event `[R, (n), E]`, `[R, (n), D]` and `[R, (m), D]`.

    Returns:
        float scalar; 0 where no history has two events.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths(tf.ones([4, 3]), [3, 1])
        >>> NextEventLoss((8,))((events.with_flat_values(tf.ones([4, 5])), events)).shape
        TensorShape([])

    Reference: Zhou et al., 2019 (DIEN), eq. 6.
    """

    def __init__(
        self,
        units: Sequence[int] = (100, 50),
        activation: Any = "sigmoid",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.activation = activation
        self.seed = random.randrange(2**31) if seed is None else seed
        self._hidden = SplitMLP(self.units, activation, name="hidden")
        self._score = tf.keras.layers.Dense(1, name="score")

    def build(self, input_shape: Any) -> None:
        """Creates the counter of draws, where there are any."""
        if len(input_shape) == 2:
            self.calls = self.add_weight(
                name="calls",
                shape=(),
                dtype=tf.int64,
                initializer="zeros",
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the mean loss of the pairs; see the class."""
        states, events, *rejected = inputs
        following = tf.where(positions(events) > 0)[:, 0]
        requests = tf.gather(events.value_rowids(), following)
        if rejected:
            ages = tf.gather(events.row_limits(), requests) - 1 - following
            negatives, exists = own_events(rejected[0], requests, ages)
        else:
            negatives, exists = self._others_events(events, requests)
        interests = repeat_rows(states.flat_values, following - 1)
        pairs = tf.stack([repeat_rows(events.flat_values, following), negatives], axis=1)
        logits = tf.squeeze(self._score(self._hidden((interests, pairs))), -1)
        losses = tf.nn.softplus(-logits[:, 0]) + exists * tf.nn.softplus(logits[:, 1])
        return tf.reduce_sum(losses) / tf.maximum(tf.cast(tf.size(losses), losses.dtype), 1.0)

    def _others_events(
        self, events: tf.RaggedTensor, requests: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws one event of another request for each of P pairs; see `own_events`."""
        seed = tf.stack([tf.constant(self.seed, tf.int64), self.calls])
        self.calls.assign_add(1)
        own = tf.gather(events.row_lengths(), requests)
        others = tf.size(events.value_rowids(), tf.int64) - own
        shares = tf.random.stateless_uniform(tf.shape(requests), seed, dtype=tf.float64)
        drawn = tf.cast(shares * tf.cast(others, tf.float64), tf.int64)
        # The events of a request lie side by side: those drawn from behind them skip them.
        drawn += tf.where(drawn >= tf.gather(events.row_starts(), requests), own, 0)
        return _existing(events, drawn, others > 0)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": self.activation,
            "seed": self.seed,
        }


def own_events(
    events: tf.RaggedTensor, requests: tf.Tensor, ages: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns events of given requests by their age, starting over beyond the oldest one.

    Args:
        events: ragged float tensor `[R, (m), D]`, oldest first.
        requests: integer tensor `[P]`, whose events are asked for.
        ages: integer tensor `[P]`; 0 is the most recent event.

    Returns:
        `(vectors [P, D], exists [P])`: 1 where the request has events; elsewhere 0 and zeros.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths([[1.0], [2.0]], [2, 0])
        >>> who, ages = tf.constant([0, 0, 0, 1], tf.int64), tf.constant([0, 1, 2, 0], tf.int64)
        >>> own_events(events, who, ages)[0][:, 0].numpy()
        array([2., 1., 2., 0.], dtype=float32)
    """
    lengths = tf.gather(events.row_lengths(), requests)
    back = tf.math.floormod(ages, tf.maximum(lengths, 1))
    last = tf.gather(events.row_limits(), requests) - 1
    return _existing(events, last - back, lengths > 0)


def _existing(
    events: tf.RaggedTensor, indices: tf.Tensor, exists: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gathers flat events, or zeros where there is none: a lookup of nothing would fail."""
    values = tf.pad(events.flat_values, [[0, 1], [0, 0]])
    nothing = tf.shape(values, tf.int64)[0] - 1
    vectors = tf.gather(values, tf.where(exists, indices, nothing))
    return vectors, tf.cast(exists, values.dtype)
