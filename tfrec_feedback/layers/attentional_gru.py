"""A recurrence over histories whose every event says how much of it counts: GRU and AUGRU."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import sum_rows, take_rows
from tfrec_feedback.layers.products import project


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class AttentionalGRU(tf.keras.layers.Layer):
    """AUGRU: a gated recurrent unit whose update gate is scaled by the weight of the event.

        u = sigmoid(x W_u + h U_u + b_u)            r = sigmoid(x W_r + h U_r + b_r)
        c = tanh(x W_c + (r * h) U_c + b_c)         h' = (1 - a u) h + a u c,   h_0 = 0

    With weight 1 everywhere, or no weights at all, it is the plain GRU. An event of weight 0
    leaves the state as it was. One history may be read with several weights at once, those of N
    candidates; x W is made once for all events and candidates, before the loop.

    There is no padding: the cost grows with the number of events V, however long the longest
    history. Requests step in order of length, so that those which still have events are a prefix
    of the state; the events lie in the order in which they are read, see `reading_order`.

    Args:
        units: U, width of the state.
        return_states: returns the state after every event rather than after the last one.

    Call arguments:
        inputs: `(events,)` or `(events, weights)`: ragged float tensor `[R, (n), D]`, oldest
            event first, and float tensor `[V, N]`, a row for every event of the batch.

    Returns:
        float tensor `[R, N, U]`, 0 for a request without events; or the states `[V, N, U]`, which
        lie as the events do. Without weights N is 1.

    Raises:
        ValueError: for units below 1.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths(tf.ones([3, 4]), [2, 1])
        >>> AttentionalGRU(8)((events, tf.ones([3, 5]))).shape
        TensorShape([2, 5, 8])

    Reference: Zhou et al., 2019 (DIEN), eq. 2 to 5 and 16 to 17. In the code of its authors the
        update gate is what is kept of the state, and the weight acts on that; here as printed.
    """

    def __init__(self, units: int, return_states: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1, got {units}.")
        self.units = units
        self.return_states = return_states

    def build(self, input_shape: Any) -> None:
        """Creates the kernels; their columns are those of u, r and c in order."""
        width, units = int(tf.TensorShape(input_shape[0])[-1]), self.units
        self.kernel = self.add_weight(name="kernel", shape=(width, 3 * units))
        self.gates_kernel = self.add_weight(
            name="gates_kernel", shape=(units, 2 * units), initializer="orthogonal"
        )
        self.state_kernel = self.add_weight(
            name="state_kernel", shape=(units, units), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(3 * units,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        """Runs the recurrence; see the class."""
        events, *weights = inputs
        read_at, active = reading_order(events)
        order = tf.math.invert_permutation(read_at)
        products = project(take_rows(events.flat_values, order), self.kernel) + self.bias
        weights = [take_rows(values, order) for values in weights]
        candidates = tf.shape(weights[0])[1] if weights else 1
        initial = tf.zeros([events.nrows(tf.int32), candidates, self.units], products.dtype)
        states = self._run(initial, active, products, *weights)
        if self.return_states:
            return take_rows(states, read_at)
        some = tf.where(events.row_lengths() > 0)[:, 0]
        last = tf.gather(read_at, tf.gather(events.row_limits(), some) - 1)
        return sum_rows(take_rows(states, last), some, events.nrows())

    def _run(self, initial: tf.Tensor, active: tf.Tensor, *rows: tf.Tensor) -> tf.Tensor:
        """Returns the states `[V, N, U]` after events that lie as they are read."""
        num_steps, state_shape = tf.size(active), tf.TensorShape([None, *initial.shape[1:]])
        # The gradient of a slice of a tensor is as large as the tensor, that of a read is not.
        inputs = [_split(values, active) for values in rows]
        kept = tf.TensorArray(
            initial.dtype, num_steps, infer_shape=False, element_shape=state_shape
        )

        def advance(t: tf.Tensor, state: tf.Tensor, kept: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
            product, *weight = (values.read(t) for values in inputs)
            following = self._step(state[: tf.shape(product)[0]], product, *weight)
            return t + 1, following, kept.write(t, following)

        *_, kept = tf.while_loop(
            lambda t, *_: t < num_steps,
            advance,
            (tf.constant(0), initial, kept),
            shape_invariants=(tf.TensorShape([]), state_shape, tf.TensorShape(None)),
        )
        return tf.ensure_shape(kept.concat(), state_shape)

    def _step(self, state: tf.Tensor, product: tf.Tensor, *weight: tf.Tensor) -> tf.Tensor:
        """Returns the states `[R, N, U]` after x W `[R, 3 U]` and any weights `[R, N]`."""
        of_gates, of_state = tf.split(product[:, tf.newaxis], [2 * self.units, self.units], -1)
        gates = tf.sigmoid(of_gates + project(state, self.gates_kernel))
        update, reset = tf.split(gates, 2, axis=-1)
        candidate = tf.tanh(of_state + project(reset * state, self.state_kernel))
        for values in weight:
            update *= values[..., tf.newaxis]
        return state + update * (candidate - state)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "return_states": self.return_states,
        }


def _split(values: tf.Tensor, lengths: tf.Tensor) -> tf.TensorArray:
    """Returns a tensor `[V, ...]` as an array of parts of the given lengths."""
    shape = [None, *values.shape[1:]]
    array = tf.TensorArray(values.dtype, tf.size(lengths), infer_shape=False, element_shape=shape)
    return array.split(values, lengths)


def reading_order(events: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns when every event is read if all histories are read at once, an event a step.

    First come the first events of all histories, then all second ones, and so on; within a step
    the requests with the longest histories come first.

    Args:
        events: ragged tensor `[R, (n), ...]`.

    Returns:
        `(read_at [V], active [T])`, int32: the place of every event in that order, and the
        requests that have an event left at every step. T is the length of the longest history,
        and at least 1: a batch without events has one step of no requests.

    Example:
        >>> read_at, active = reading_order(tf.ragged.constant([["a"], ["b", "c"]]))
        >>> read_at.numpy().tolist(), active.numpy().tolist()
        ([1, 0, 2], [2, 1])
    """
    lengths = tf.cast(events.row_lengths(), tf.int32)
    longest_first = tf.argsort(lengths, direction="DESCENDING", stable=True)
    ranks = tf.math.invert_permutation(longest_first)
    steps = tf.cast(positions(events), tf.int32)
    num_steps = tf.maximum(tf.reduce_max(lengths), 1)
    active = tf.math.unsorted_segment_sum(tf.ones_like(steps), steps, num_steps)
    starts = tf.cumsum(active, exclusive=True)
    return tf.gather(starts, steps) + tf.gather(ranks, events.value_rowids()), active


def positions(events: tf.RaggedTensor) -> tf.Tensor:
    """Returns the place of every event in its own history, counted from 0: `[V]`."""
    starts = tf.gather(events.row_starts(), events.value_rowids())
    return tf.range(tf.size(starts, tf.int64)) - starts
