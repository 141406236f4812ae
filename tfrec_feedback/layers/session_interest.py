"""DSIN's view of a history: an interest for every session, and how interests follow each other."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.masking import length_mask, masked_softmax
from tfrec_feedback.layers.products import batched_product, project

_DIRECTIONS = ("forward", "backward")


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class SessionInterest(tf.keras.layers.Layer):
    """Turns a history that is cut into sessions into two vectors a session.

    1. Bias encoding: `w_session[k] + w_place[t] + w_unit[c]` is added to unit c of the event that
       stands at place t of session k. Places are counted back from the session's most recent
       event, so that they do not change with what older events a history keeps.
    2. Self-attention inside each session, `softmax(Q K^T / sqrt(D / H)) V` by head, then a
       feed-forward network D-4D-D; both with a residual. An event may look at itself: a session
       of one event would have nothing else to look at.
    3. The session's interest is the mean of its events.
    4. A bi-directional LSTM, whose two directions are added, reads the interests from the oldest
       session to the latest; sessions that are not there leave its state as it is.

    All of it depends on the user alone: it is computed once a request, whatever the candidates.

    Args:
        num_sessions: K, the most recent sessions that are read.
        session_length: at most so many of a session's most recent events take part.
        num_heads: H; must divide D.
        min_session_events: sessions with fewer events are left out.

    Call arguments:
        inputs: `(events, sessions)`: ragged float `[R, (n), D]`, oldest event first, and int32
            `[R, T]` (T >= n): the session of every event counted back from the most recent; events
            of session K and beyond are left out, padded positions are not read.

    Returns:
        `(interests, evolved)`: two ragged float tensors `[R, (k), D]` with a row for every session
        that has events, the latest first: what step 3 and what step 4 give. A request without
        events has no rows.

    Raises:
        ValueError: when H does not divide D, or an argument is not positive.

    Example:
        >>> events = tf.RaggedTensor.from_row_lengths(tf.ones([4, 8]), [3, 1])
        >>> sessions = tf.constant([[1, 0, 0], [0, 5, 5]])
        >>> interests, evolved = SessionInterest(5, num_heads=2)((events, sessions))
        >>> interests.row_lengths().numpy().tolist(), evolved.shape.as_list()
        ([2, 1], [2, None, 8])

    Reference: Feng et al., 2019 (DSIN), sections 3.3.2 and 3.3.3. As in the authors' code there is
    no layer normalisation; unlike there, no event is hidden from itself.
    """

    def __init__(
        self,
        num_sessions: int,
        session_length: int = 10,
        num_heads: int = 8,
        min_session_events: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_sessions = num_sessions
        self.session_length = session_length
        self.num_heads = num_heads
        self.min_session_events = min_session_events
        for name, value in self._arguments().items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")

    def build(self, input_shape: Any) -> None:
        """Creates all weights; the encodings start near 0, so that at first events count alone."""
        width = int(tf.TensorShape(input_shape[0])[-1])
        if width % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must divide D={width}, the width of an event (fields "
                "of the history times embedding_dim). Choose another num_heads, or an "
                f"embedding_dim that is a multiple of {self.num_heads}."
            )
        sizes = {"session": (self.num_sessions, 1), "place": (self.session_length, 1)}
        self.encodings = {
            name: self.add_weight(
                name=f"{name}_encoding",
                shape=shape,
                initializer=tf.keras.initializers.TruncatedNormal(stddev=1e-4),
            )
            for name, shape in {**sizes, "unit": (width,)}.items()
        }
        self.kernels = {
            name: self.add_weight(name=f"{name}_kernel", shape=(width, width))
            for name in ("query", "key", "value", "output")
        }
        self.wide, self.narrow = (
            {
                "kernel": self.add_weight(name=f"{name}_kernel", shape=(given, wanted)),
                "bias": self.add_weight(name=f"{name}_bias", shape=(wanted,), initializer="zeros"),
            }
            for name, given, wanted in (("wide", width, 4 * width), ("narrow", 4 * width, width))
        )
        self.lstm = {
            f"{direction}_{part}": self.add_weight(
                name=f"{direction}_{part}", shape=shape, initializer=initializer
            )
            for direction in _DIRECTIONS
            for part, shape, initializer in (
                ("kernel", (width, 4 * width), "glorot_uniform"),
                ("recurrent_kernel", (width, 4 * width), "orthogonal"),
                ("bias", (1, 4 * width), "zeros"),
            )
        }
        super().build(input_shape)

    def call(self, inputs: Any) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Returns the interests of the sessions, alone and in sequence; see the class."""
        events, numbers = inputs
        values = events.to_tensor()
        valid = length_mask(events.row_lengths(), tf.shape(values)[1])
        sessions, places = self._place(numbers[:, : tf.shape(values)[1]], valid)
        values += project(sessions, self.encodings["session"]) + self.encodings["unit"]
        values += project(places, self.encodings["place"])
        values += self._attend(values, batched_product(sessions, sessions, transpose_b=True))
        wide = tf.nn.relu(project(values, self.wide["kernel"]) + self.wide["bias"])
        values += project(wide, self.narrow["kernel"]) + self.narrow["bias"]
        count = tf.reduce_sum(sessions, axis=1)
        total = tf.einsum("rtk,rtd->rkd", sessions, values)
        interests = total / tf.maximum(count, 1.0)[..., tf.newaxis]
        present = count > 0.0
        return _rows(interests, present), _rows(self._evolve(interests, present), present)

    def _place(self, numbers: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns one-hot session and place of every event, `[R, T, ...]`; 0 if it is left out."""
        sessions = tf.one_hot(numbers, self.num_sessions) * valid[..., tf.newaxis]
        together = batched_product(sessions, sessions, transpose_b=True)
        # The upper triangle holds an event itself and what came after it.
        place = tf.reduce_sum(tf.linalg.band_part(together, 0, -1), axis=-1) - 1.0
        places = tf.one_hot(tf.cast(place, tf.int32), self.session_length)
        enough = tf.reduce_sum(together, axis=-1) >= float(self.min_session_events)
        kept = tf.reduce_sum(places, axis=-1) * tf.cast(enough, tf.float32)
        return sessions * kept[..., tf.newaxis], places * kept[..., tf.newaxis]

    def _attend(self, values: tf.Tensor, together: tf.Tensor) -> tf.Tensor:
        """Self-attention of values `[R, T, D]` among those that are together, `[R, T, T]`."""
        requests, length, width = tf.shape(values)[0], tf.shape(values)[1], values.shape[-1]
        by_head = [requests, length, self.num_heads, width // self.num_heads]
        query, key, value = (
            tf.transpose(tf.reshape(project(values, self.kernels[name]), by_head), [0, 2, 1, 3])
            for name in ("query", "key", "value")
        )
        scores = batched_product(query, key, transpose_b=True)
        scores *= (width // self.num_heads) ** -0.5
        read = batched_product(masked_softmax(scores, together[:, tf.newaxis]), value)
        joined = tf.reshape(tf.transpose(read, [0, 2, 1, 3]), [requests, length, width])
        return project(joined, self.kernels["output"])

    def _evolve(self, interests: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Both LSTMs over sessions `[R, K, D]`, which stand latest first.

        They take their steps together, as a leading axis of two, and what does not wait for the
        step before is computed for all sessions at once.
        """
        kernel, recurrent, bias = (
            tf.stack([self.lstm[f"{direction}_{part}"] for direction in _DIRECTIONS])
            for part in ("kernel", "recurrent_kernel", "bias")
        )
        both = tf.stack([interests[:, ::-1], interests])
        there = tf.stack([present[:, ::-1], present])[..., tf.newaxis]
        flat = tf.reshape(both, [2, -1, both.shape[-1]])
        projected = batched_product(flat, kernel) + bias
        projected = tf.reshape(projected, [2, -1, self.num_sessions, kernel.shape[-1]])
        hidden = cell = tf.zeros_like(both[:, :, 0])
        states = []
        for step, here in zip(
            tf.unstack(projected, axis=2), tf.unstack(there, axis=2), strict=True
        ):
            gates = tf.split(step + batched_product(hidden, recurrent), 4, axis=-1)
            # At the start much is kept: 1 is added to the forget gate, as is customary.
            new = tf.sigmoid(gates[1] + 1.0) * cell + tf.sigmoid(gates[0]) * tf.tanh(gates[2])
            cell = tf.where(here, new, cell)
            hidden = tf.where(here, tf.sigmoid(gates[3]) * tf.tanh(new), hidden)
            states.append(hidden)
        forward, backward = tf.unstack(tf.stack(states, axis=2))
        return forward[:, ::-1] + backward

    def _arguments(self) -> dict[str, int]:
        return {
            "num_sessions": self.num_sessions,
            "session_length": self.session_length,
            "num_heads": self.num_heads,
            "min_session_events": self.min_session_events,
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), **self._arguments()}


def _rows(values: tf.Tensor, present: tf.Tensor) -> tf.RaggedTensor:
    """Keeps the rows of `[R, K, D]` that are present."""
    where = tf.where(present)
    requests = tf.shape(present, tf.int64)[0]
    # What reads the rows asks to which request they belong, so that is what they are made from.
    return tf.RaggedTensor.from_value_rowids(
        tf.gather_nd(values, where), where[:, 0], requests, validate=False
    )
