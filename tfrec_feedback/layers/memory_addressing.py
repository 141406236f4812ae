"""Content addressing of a memory of M slots and W wide words: pure functions, in the order of use.

A *slot* is a row of the memory. Keys are compared with all slots by cosine; the softmax of the
cosines says how much of every slot is read, or written.

Reference: Graves et al., 2014, Neural Turing Machines; Bian et al., 2021 (DUMN), section 3.4.
"""

from __future__ import annotations

import tensorflow as tf

from tfrec_feedback.layers.products import project

WRITE_RULES = ("mean", "multi_head", "union", "sequential")
ADDITIVE_RULES = ("mean", "multi_head", "union")
"""Rules whose sums add up over parts of a batch, in any order."""

_SMALLEST_NORM = 1e-3

Sums = tuple[tf.Tensor, ...]


def normalized(vectors: tf.Tensor) -> tf.Tensor:
    """Divides vectors by their norm, or by 1e-3 where it is smaller: 0 stays 0.

    The floor bounds the gradient at short vectors; at 0 it is 0.

    Args:
        vectors: float tensor `[..., W]`.
    """
    squared = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    scaled = vectors * tf.math.rsqrt(tf.maximum(squared, _SMALLEST_NORM**2))
    return tf.where(squared > 0.0, scaled, 0.0)


def cosine_weights(
    keys: tf.Tensor, memory: tf.Tensor, strength: tf.Tensor | float = 1.0
) -> tf.Tensor:
    """Weights of the slots: softmax of `strength * cosine(key, slot)`.

    Args:
        keys: float tensor `[..., W]`; a key of 0 weighs all slots alike.
        memory: float tensor `[M, W]`.
        strength: the key strength, one number or a float tensor `[...]`. At 1 and 256 slots the
            largest possible weight is 0.028 against 0.004 for an average slot.

    Returns:
        float tensor `[..., M]`, sums to 1.

    Example:
        >>> memory = tf.constant([[1.0, 0.0], [0.0, 2.0]])
        >>> cosine_weights(tf.constant([[2.0, 0.0]]), memory).numpy().round(3)
        array([[0.731, 0.269]], dtype=float32)
    """
    keys, memory = tf.convert_to_tensor(keys), tf.convert_to_tensor(memory)
    cosines = project(normalized(keys), tf.transpose(normalized(memory)))
    strength = tf.convert_to_tensor(strength, cosines.dtype)
    return tf.nn.softmax(cosines * (strength[..., tf.newaxis] if strength.shape.rank else strength))


def read(weights: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
    """Mean of the slots by their weights.

    Args:
        weights: float tensor `[..., M]`.
        memory: float tensor `[M, W]`.

    Returns:
        float tensor `[..., W]`.

    Example:
        >>> read(tf.constant([[0.5, 0.5]]), tf.constant([[1.0, 0.0], [0.0, 2.0]])).numpy()
        array([[0.5, 1. ]], dtype=float32)
    """
    return project(tf.convert_to_tensor(weights), tf.convert_to_tensor(memory))


def write_sums(
    weights: tf.Tensor,
    erase: tf.Tensor,
    add: tf.Tensor,
    validity: tf.Tensor,
    rule: str = "mean",
) -> Sums:
    """Everything a rule needs of a batch, as sums over its examples.

    Sums of two parts of a batch, added, are those of the batch: so that micro-batches and
    replicas write what one large batch would.

    Args:
        weights: float tensor `[B, M]`, write weights.
        erase: float tensor `[B, W]` in [0, 1].
        add: float tensor `[B, W]`.
        validity: float tensor `[B]`: 0 leaves an example out, a fraction scales its weights.
        rule: one of `ADDITIVE_RULES`.

    Returns:
        Tensors for `apply_sums`.
    """
    scaled = weights * validity[:, tf.newaxis]
    added = tf.tensordot(scaled, add, [[0], [0]])
    if rule == "mean":
        return tf.tensordot(scaled, erase, [[0], [0]]), added, tf.reduce_sum(validity)
    if rule == "multi_head":  # forms [B, M, W]
        kept = tf.math.log1p(-scaled[:, :, tf.newaxis] * erase[:, tf.newaxis, :])
        return tf.reduce_sum(kept, axis=0), added
    if rule == "union":
        untouched = tf.reduce_sum(tf.math.log1p(-scaled), axis=0)
        erased = tf.tensordot(scaled, erase, [[0], [0]])
        return erased, added, untouched, tf.reduce_sum(scaled, axis=0)
    raise ValueError(f"Unknown write rule {rule!r}; expected one of {list(ADDITIVE_RULES)}.")


def apply_sums(memory: tf.Tensor, sums: Sums, rule: str = "mean") -> tf.Tensor:
    """Returns the memory after a write; the same memory, to the bit, where nothing was valid."""
    if rule == "mean":
        erased, added, total = sums
        return memory + tf.math.divide_no_nan(added - erased * memory, total)
    if rule == "multi_head":
        kept, added = sums
        return tf.exp(kept) * memory + added
    erased, added, untouched, mass = sums
    touched = -tf.math.expm1(untouched)[:, tf.newaxis]
    mass = mass[:, tf.newaxis]
    erased, added = tf.math.divide_no_nan(erased, mass), tf.math.divide_no_nan(added, mass)
    return (1.0 - touched * erased) * memory + touched * added


def write(
    memory: tf.Tensor,
    weights: tf.Tensor,
    erase: tf.Tensor,
    add: tf.Tensor,
    validity: tf.Tensor,
    rule: str = "mean",
) -> tf.Tensor:
    """Writes a batch of examples into a memory.

    One example writes `M' = (1 - w erase^T) * M + w add^T`. The paper does not say what a batch
    does; all rules agree with it for one example.

    - `mean`: the mean of the memories that every example would have left. Bounded for any batch.
    - `multi_head`: erasures multiplied, additions summed, as several heads of a Turing machine;
      grows with the batch.
    - `union`: slots are touched by the probability that any example touches them, by their mean
      erase and add; a large batch replaces the memory.
    - `sequential`: one after the other; depends on the order. For tests.

    Args:
        memory: float tensor `[M, W]`.
        weights: float tensor `[B, M]`, write weights.
        erase: float tensor `[B, W]` in [0, 1].
        add: float tensor `[B, W]`.
        validity: float tensor `[B]`: 0 leaves an example out, a fraction scales its weight.
        rule: one of `WRITE_RULES`.

    Returns:
        float tensor `[M, W]`. With nothing valid, the memory unchanged to the bit.

    Example:
        >>> write(tf.ones([1, 2]), tf.ones([1, 1]), [[1.0, 0.0]], [[0.5, 0.5]], [1.0]).numpy()
        array([[0.5, 1.5]], dtype=float32)

    Reference: Bian et al., 2021 (DUMN), the memory's write; batch rules: docs/deviations.md.
    """
    weights, erase, add = (tf.convert_to_tensor(x, memory.dtype) for x in (weights, erase, add))
    validity = tf.convert_to_tensor(validity, memory.dtype)
    if rule != "sequential":
        return apply_sums(memory, write_sums(weights, erase, add, validity, rule), rule)

    def one(state: tf.Tensor, example: tuple[tf.Tensor, ...]) -> tf.Tensor:
        w, e, a, v = example
        w = (w * v)[:, tf.newaxis]
        return (1.0 - w * e) * state + w * a

    return tf.foldl(one, (weights, erase, add, validity), memory)


def read_after_write(
    memory: tf.Tensor, weights: tf.Tensor, erase: tf.Tensor, add: tf.Tensor
) -> tf.Tensor:
    """What every example would read with its write weights, had it alone written.

    `w M' = w M - erase * (w^2 M) + |w|^2 add`: closed form, without a memory an example. Reading
    the memory after the write is what gives the write its gradient.

    Args:
        memory: float tensor `[M, W]`.
        weights: float tensor `[..., M]`, write weights.
        erase: float tensor `[..., W]`.
        add: float tensor `[..., W]`.

    Returns:
        float tensor `[..., W]`.
    """
    squared = tf.square(weights)
    total = tf.reduce_sum(squared, axis=-1, keepdims=True)
    return read(weights, memory) - erase * read(squared, memory) + total * add
