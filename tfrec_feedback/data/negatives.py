"""Negatives: items that a user has no train interaction with, drawn inside `tf.data`."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.interaction_table import ItemLists

_PHILOX = 1
_NEGATIVES = 1  # Sets the draws of negatives apart from the shuffle, which has the same seed.


class NegativeSampler:
    """Draws items uniformly from those that are not in the user's list.

    No draw is ever rejected: a number `r` below the count of a user's unseen items is taken, and
    the `r`-th unseen item is found directly. With his items `p_0 < p_1 < ...`, `p_j - j` unseen
    ones lie before `p_j`, so that item is `r` plus the number of `j` with `p_j - j <= r`: one
    binary search in an array that is sorted over all users at once.

    Draws are a function of seed, epoch and their position in the epoch (a counter-based generator,
    Philox), whatever the batches.

    Args:
        positives: the items of every user that are never drawn.
        num_items: I.
        seed: not negative.
        epoch: draws of different epochs are independent.

    Example:
        >>> lists = ItemLists(np.array([0, 3]), np.int32([0, 1, 3]), np.ones(3, bool))
        >>> sampler = NegativeSampler(lists, num_items=5, seed=0, epoch=0)
        >>> set(sampler.pick(tf.zeros([100], tf.int32), sampler.uniform(0, 100)).numpy().tolist())
        {2, 4}
    """

    def __init__(self, positives: ItemLists, num_items: int, seed: int, epoch: int):
        users = np.repeat(np.arange(len(positives.lengths)), positives.lengths)
        position = np.arange(len(positives.items)) - positives.offsets[users]
        before = positives.items - position
        self._keys = tf.constant(users * num_items + before, tf.int64)
        self._offsets = tf.constant(positives.offsets[:-1], tf.int32)
        self._unseen = tf.constant(num_items - positives.lengths, tf.float64)
        self._num_items = num_items
        key = np.random.SeedSequence([seed, epoch, _NEGATIVES]).generate_state(1, np.uint64)
        self._key = tf.constant(key)

    def uniform(self, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Returns `size` numbers in [0, 1) of the epoch's sequence, from `2 * start`, float64.

        Args:
            start: integer scalar; two numbers of the sequence have one counter.
            size: integer scalar.
        """
        counter = tf.stack([tf.cast(start, tf.uint64), tf.constant(0, tf.uint64)])
        return tf.raw_ops.StatelessRandomUniformV2(
            shape=tf.reshape(size, [1]),
            key=self._key,
            counter=counter,
            alg=_PHILOX,
            dtype=tf.float64,
        )

    def pick(self, users: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Returns an unseen item of every user.

        Args:
            users: int32 `[n]`.
            uniform: float64 `[n]`, in [0, 1).

        Returns:
            int32 `[n]`.
        """
        # Below the count for any float64 below 1 and any count an int32 holds.
        rank = tf.cast(uniform * tf.gather(self._unseen, users), tf.int64)
        wanted = tf.cast(users, tf.int64) * self._num_items + rank
        before = tf.searchsorted(self._keys, wanted, side="right")
        return tf.cast(rank, tf.int32) + before - tf.gather(self._offsets, users)
