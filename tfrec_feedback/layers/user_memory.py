"""DUMN's user memory: what users liked over a long time, in slots that all users share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from tfrec_feedback.layers import memory_addressing
from tfrec_feedback.layers.products import project
from tfrec_feedback.layers.replicas import sum_over_replicas
from tfrec_feedback.layers.split_dense import SplitDense

_LEARNED_START = 10.0
"""Key strength that `"learned"` starts from."""


class MemoryAccess(NamedTuple):
    """What one access found, and what it would write.

    Attributes:
        read: `[R, N, W]`, the long-term interest.
        read_weights: `[R, N, M]`.
        write_weights: `[R, N, M]`.
        erase: `[R, N, W]` in (0, 1).
        add: `[R, N, W]` in (-1, 1).
        anchor: `[R, N, W]`, what this access would read back had it alone written.
    """

    read: tf.Tensor
    read_weights: tf.Tensor
    write_weights: tf.Tensor
    erase: tf.Tensor
    add: tf.Tensor
    anchor: tf.Tensor


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class UserMemory(tf.keras.layers.Layer):
    """A memory read and written by keys made from short-term interest and user.

    A two-layer controller turns `concat(short_term, user)` into a read key, a write key, an erase
    and an add vector. The memory is read by the read key. It is not trained by gradients: the
    accesses of an optimiser step are written after it by `commit`, and nothing else ever writes.
    Reading comes before writing, so that a request never reads itself and serving, which only
    reads, sees what training saw.

    Calling the layer never changes the memory:

        access = memory.access(short_term, user)         # read, and heads for writing
        sums = memory.write_sums(access, validity)       # of a batch, or of a part of it
        memory.commit(sums)                              # once an optimiser step

    Args:
        memory_size: M, slots.
        word_size: W, width of a slot.
        controller_units: hidden width of the controller.
        key_strength: factor on the cosines, 1.0 as printed; or `"learned"`, `1 + softplus(key . w
            + b)` a key, from 10. At 1.0 all slots drift together until every user reads the same
            vector; `"learned"` keeps them apart.
        write_rule: how a batch is written: `mean`, `multi_head` or `union`, see
            `memory_addressing.write`.
        max_norm: largest norm of a slot after a write; None does not clip. Adding without erasing
            is unbounded in principle.

    Call arguments:
        short_term: float tensor `[R, N, E]`, a short-term interest a candidate; `[B, E]` with
            users `[B, U]` as well.
        user: float tensor `[R, U]`; its part of the controller is computed once a request.

    Returns:
        float tensor `[R, N, W]`: the long-term interest.

    Example:
        >>> memory = UserMemory(memory_size=8, word_size=4, controller_units=16)
        >>> memory(tf.ones([2, 3, 5]), tf.ones([2, 6])).shape
        TensorShape([2, 3, 4])

    Reference: Bian et al., 2021 (DUMN), section 3.4; Graves et al., 2014.
    """

    def __init__(
        self,
        memory_size: int = 256,
        word_size: int = 64,
        controller_units: int = 512,
        key_strength: float | str = 1.0,
        write_rule: str = "mean",
        max_norm: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("memory_size", memory_size),
            ("word_size", word_size),
            ("controller_units", controller_units),
        ):
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}.")
        if key_strength != "learned" and not (
            isinstance(key_strength, int | float) and key_strength > 0
        ):
            raise ValueError(
                f"key_strength must be a positive number or 'learned', got {key_strength!r}."
            )
        if write_rule not in memory_addressing.ADDITIVE_RULES:
            raise ValueError(
                f"write_rule must be one of {list(memory_addressing.ADDITIVE_RULES)}, got "
                f"{write_rule!r}."
            )
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"max_norm must be positive or None, got {max_norm}.")
        self.memory_size = memory_size
        self.word_size = word_size
        self.controller_units = controller_units
        self.key_strength = key_strength
        self.write_rule = write_rule
        self.max_norm = max_norm
        self._hidden = SplitDense(controller_units, "relu", name="hidden")

    def build(self, input_shape: Any) -> None:
        """Creates the memory, from random rows: equal rows could never be told apart."""
        width = self.word_size
        self.memory = self.add_weight(
            name="memory",
            shape=(self.memory_size, width),
            dtype=tf.float32,
            initializer=tf.keras.initializers.RandomNormal(stddev=width**-0.5),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.heads_kernel = self.add_weight(
            name="heads_kernel", shape=(self.controller_units, 4 * width)
        )
        self.heads_bias = self.add_weight(
            name="heads_bias", shape=(4 * width,), initializer="zeros"
        )
        if self.key_strength == "learned":
            start = math.log(math.expm1(_LEARNED_START - 1.0))
            self.strength_kernel = self.add_weight(
                name="strength_kernel", shape=(width, 2), initializer="zeros"
            )
            self.strength_bias = self.add_weight(
                name="strength_bias",
                shape=(2,),
                initializer=tf.keras.initializers.Constant(start),
            )
        super().build(input_shape)

    def call(self, short_term: tf.Tensor, user: tf.Tensor) -> tf.Tensor:
        """Reads, and computes nothing that only a write needs; see the class."""
        key = self._heads(self._controller(short_term, user), 1)
        return memory_addressing.read(self._address(key, 0), self.memory)

    def access(self, short_term: tf.Tensor, user: tf.Tensor) -> MemoryAccess:
        """Reads, and prepares the write.

        Args:
            short_term: float tensor `[R, N, E]`.
            user: float tensor `[R, U]`.
        """
        heads = self._heads(self._controller(short_term, user), 4)
        read_key, write_key, erase, add = tf.split(heads, 4, axis=-1)
        erase, add = tf.sigmoid(erase), tf.tanh(add)
        memory = tf.convert_to_tensor(self.memory)
        read_weights, write_weights = self._address(read_key, 0), self._address(write_key, 1)
        return MemoryAccess(
            memory_addressing.read(read_weights, memory),
            read_weights,
            write_weights,
            erase,
            add,
            memory_addressing.read_after_write(memory, write_weights, erase, add),
        )

    def _controller(self, short_term: tf.Tensor, user: tf.Tensor) -> tf.Tensor:
        if not self.built:
            self(short_term, user)
        short_term, user = tf.convert_to_tensor(short_term), tf.convert_to_tensor(user)
        if short_term.shape.rank == 2:
            return tf.squeeze(self._hidden((user, short_term[:, tf.newaxis])), 1)
        return self._hidden((user, short_term))

    def _heads(self, hidden: tf.Tensor, count: int) -> tf.Tensor:
        """Returns the first heads: read key, write key, erase and add."""
        width = count * self.word_size
        return project(hidden, self.heads_kernel[:, :width]) + self.heads_bias[:width]

    def _address(self, key: tf.Tensor, head: int) -> tf.Tensor:
        strength = self.key_strength
        if strength == "learned":
            logit = tf.tensordot(key, self.strength_kernel[:, head], 1) + self.strength_bias[head]
            strength = 1.0 + tf.nn.softplus(logit)
        return memory_addressing.cosine_weights(key, self.memory, strength)

    def write_sums(self, access: MemoryAccess, validity: tf.Tensor) -> memory_addressing.Sums:
        """Returns what `commit` needs of a batch; sums of parts of a batch may be added.

        Args:
            access: accesses of any leading axes.
            validity: float tensor of these axes: 0 for what must not be written; a fraction for
                less weight, such as 1 / N for each of N candidates of a request.
        """
        written = (access.write_weights, access.erase, access.add)
        weights, erase, add = (tf.stop_gradient(tf.reshape(x, [-1, x.shape[-1]])) for x in written)
        validity = tf.reshape(validity, [-1])
        return memory_addressing.write_sums(weights, erase, add, validity, self.write_rule)

    def commit(self, sums: memory_addressing.Sums) -> None:
        """Writes the memory, once an optimiser step; replicas write the sum of all of them."""
        sums = sum_over_replicas(sums)
        written = memory_addressing.apply_sums(self.memory, sums, self.write_rule)
        if self.max_norm is not None:
            # Slots that nothing was written to stay as they are, to the bit.
            changed = tf.reduce_any(written != self.memory, axis=-1, keepdims=True)
            too_long = tf.norm(written, axis=-1, keepdims=True) > self.max_norm
            clipped = tf.clip_by_norm(written, self.max_norm, axes=[-1])
            written = tf.where(changed & too_long, clipped, written)
        self.memory.assign(written)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "memory_size": self.memory_size,
            "word_size": self.word_size,
            "controller_units": self.controller_units,
            "key_strength": self.key_strength,
            "write_rule": self.write_rule,
            "max_norm": self.max_norm,
        }
