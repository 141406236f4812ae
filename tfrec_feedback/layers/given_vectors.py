"""Vectors of a batch that are looked up before the layers run, for steps that XLA compiles.

Rows of a table are gathered and updated outside the compiled step, where that takes a time that
does not grow with the table; the step is given the vectors, and returns their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

Tensors = dict[str, tf.Tensor]


def all_rows(encoded: Tensors, groups: Sequence[str]) -> tf.Tensor:
    """Returns the rows of all groups one after another, `[V]`.

    Args:
        encoded: output of `FeatureEncoder`.
        groups: `context`, `candidate` and names of histories.
    """
    return tf.concat([tf.reshape(encoded[f"{group}_rows"], [-1]) for group in groups], axis=0)


def with_vectors(encoded: Tensors, groups: Sequence[str], vectors: tf.Tensor) -> Tensors:
    """Returns an encoded batch whose `<group>_vectors` need not be looked up any more.

    Args:
        encoded: output of `FeatureEncoder`.
        groups: as of `all_rows`.
        vectors: of `all_rows`, `[V, D]`.
    """
    rows = [encoded[f"{group}_rows"] for group in groups]
    parts = tf.split(vectors, [tf.size(x) for x in rows])
    given = {}
    for group, part, own in zip(groups, parts, rows, strict=True):
        shape = tf.concat([tf.shape(own), vectors.shape[-1:]], axis=0)
        given[f"{group}_vectors"] = tf.ensure_shape(
            tf.reshape(part, shape), [*own.shape, vectors.shape[-1]]
        )
    return {**encoded, **given}
