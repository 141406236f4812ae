"""Parts of a training step: batches cut into micro-batches, and gradients summed over them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def split_requests(batch: Any, parts: int) -> list[Any]:
    """Cuts a batch into parts of whole requests, of nearly equal size.

    Args:
        batch: tensors in any structure, requests first in every shape.
        parts: how many; one returns the batch itself.
    """
    if parts == 1:
        return [batch]
    requests = tf.shape(tf.nest.flatten(batch)[0])[0]
    ends = [requests * i // parts for i in range(parts + 1)]
    return [
        tf.nest.map_structure(lambda x, a=start, b=end: x[a:b], batch)
        for start, end in zip(ends[:-1], ends[1:], strict=True)
    ]


def add_gradients(first: list[Any], second: list[Any]) -> list[Any]:
    """Adds gradients variable by variable; those of embedding rows stay sparse."""
    return [_add(a, b) for a, b in zip(first, second, strict=True)]


def _add(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tf.IndexedSlices):
        values = tf.concat([a.values, b.values], axis=0)
        return tf.IndexedSlices(values, tf.concat([a.indices, b.indices], axis=0), a.dense_shape)
    return a + b
