"""Datasets whose batches are functions of their number, so that any of them can be made alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def numbered_batches(
    make: Callable[[tf.Tensor], Any], size: int, batch_size: int, skip_batches: int = 0
) -> tf.data.Dataset:
    """Makes the batches of `size` examples, the last with what is left; its cardinality is known.

    Args:
        make: returns the batch whose first example is at a position, int64 scalar, and which ends
            `batch_size` examples later or where there are no more.
        size: number of examples.
        batch_size: examples a batch.
        skip_batches: leaves out the first batches, without making them.

    Raises:
        ValueError: for a batch size below 1 or a negative number of batches.

    Example:
        >>> squares = numbered_batches(lambda start: start**2, size=5, batch_size=2, skip_batches=1)
        >>> [int(batch) for batch in squares]
        [4, 16]
    """
    if batch_size < 1 or skip_batches < 0:
        raise ValueError(
            "batch_size must be at least 1 and skip_batches at least 0, got "
            f"{batch_size} and {skip_batches}."
        )
    total = -(-size // batch_size)
    dataset = tf.data.Dataset.range(min(skip_batches, total), total)
    dataset = dataset.map(lambda n: make(n * batch_size), num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the shuffled order of an epoch's examples, a function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(size)
