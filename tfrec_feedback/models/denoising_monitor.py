"""What a loss does to true and false positives, summed up inside the training step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.manifest import FALSE_POSITIVE
from tfrec_feedback.losses import DenoisingLoss, ElementLoss, Truncated, feedback_type
from tfrec_feedback.schema import Feature, Schema

SUMS = (
    *("batches", "elements", "drop_rate"),
    *("positives", "loss", "dropped", "weight"),
    *("known", "false_positives", "loss_false", "dropped_false", "weight_false"),
)
"""What a window sums: batches, exposures and drop rates; then of all positives, and after `known`
(positives of which it is known) of false ones: their number, cross entropy, dropped ones, weights.
"""

GROUPED = {"users": "user_id", "items": "item_id"}
"""Whose positives are counted one by one, and the feature that tells them apart."""

Tensors = dict[str, tf.Tensor]


class RowCounts(NamedTuple):
    """Positives of every row of a feature's embedding table; both float32 `[rows]`.

    Attributes:
        positives: how many the loss met.
        dropped: how many of them it dropped.
    """

    positives: np.ndarray
    dropped: np.ndarray


class DenoisingMonitor:
    """Sums over the batches since it was last read; looks on and changes nothing.

    Hang it on a model as `denoising_monitor` before training: `FeedbackModel.objective` calls
    `record` in every training step. It is no `tf.Module`, which a Keras model would take for a part
    of itself and save: whoever trains puts `variables` into the checkpoint. One replica only.

    Args:
        schema: the model's. Users and items are counted where it has them by id.
        loss: the model's `click_loss`. Rows are counted for a truncated loss alone, the one that
            drops anything.

    Attributes:
        variables: `window` float64 `[len(SUMS)]`, and for each of `GROUPED` that is counted
            float32 `[rows, 2]`: whole numbers, exact up to 2^24 between two readings.
    """

    def __init__(self, schema: Schema, loss: ElementLoss | DenoisingLoss):
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError("A DenoisingMonitor sums on one replica: train without a strategy.")
        self._loss = loss
        self.variables = {"window": _zeros([len(SUMS)], tf.float64, "window")}
        self._slots: dict[str, tuple[str, int, int]] = {}
        if not isinstance(loss, Truncated):
            return
        offsets = schema.table_offsets()
        for group, used in (("context", schema.context), ("candidate", schema.candidate)):
            for kind, name in GROUPED.items():
                if (slot := _slot(used, name)) is not None:
                    feature = schema.feature(name)
                    self._slots[kind] = (f"{group}_rows", slot, offsets[feature.table])
                    self.variables[kind] = _zeros([feature.num_rows, 2], tf.float32, kind)

    def record(
        self, encoded: Tensors, labels: Tensors, logits: tf.Tensor, share: tf.Tensor
    ) -> None:
        """Adds a batch, or a micro-batch.

        Args:
            encoded: requests, by `FeatureEncoder`.
            labels: of the tasks, `[R, N]`, and `false_positive` where it is known.
            logits: of clicks, `[R, N]`.
            share: weight of every candidate, `[R, N]`; 0 where padded.
        """
        found, factors, kept, rate = self._judged(labels, tf.stop_gradient(logits), share)
        takes_part = found.weights > 0
        # Padding may hold anything, NaN as well: it is left out, not multiplied by 0.
        positives = tf.where(takes_part & found.positives)
        columns = [
            tf.gather_nd(tf.cast(values, tf.float64), positives)
            for values in (tf.ones_like(kept), -found.confidence, 1.0 - kept, factors)
        ]
        of_positives, known = tf.stack(columns, axis=1), 0
        false = of_positives[:0]
        if FALSE_POSITIVE in labels:
            known = tf.shape(positives)[0]
            marked = tf.gather_nd(labels[FALSE_POSITIVE], positives) > 0
            false = tf.boolean_mask(of_positives, marked)
        sums = [
            [1.0, tf.math.count_nonzero(takes_part, dtype=tf.float64), rate],
            tf.reduce_sum(of_positives, axis=0),
            [tf.cast(known, tf.float64)],
            tf.reduce_sum(false, axis=0),
        ]
        self.variables["window"].assign_add(tf.concat(sums, axis=0))
        self._count_rows(encoded, positives, tf.gather_nd(kept, positives))

    def _judged(self, labels: Tensors, logits: tf.Tensor, share: tf.Tensor) -> Any:
        """Returns elements, what their losses are multiplied by, which are kept, the drop rate."""
        clicks = labels["ctr"]
        kinds = feedback_type(clicks, labels.get("dislike", tf.zeros_like(clicks)))
        rate = tf.constant(0.0, tf.float64)
        if not isinstance(self._loss, DenoisingLoss):
            found = self._loss.elements(kinds, logits, share)
            return found, tf.ones_like(found.losses), tf.ones_like(found.losses), rate
        found = self._loss.base.elements(kinds, logits, share)
        factors = self._loss.factors(kinds, logits, share)
        if isinstance(self._loss, Truncated):
            return found, factors, factors, self._loss.drop_rate()
        return found, factors, tf.ones_like(factors), rate

    def _count_rows(self, encoded: Tensors, positives: tf.Tensor, kept: tf.Tensor) -> None:
        counts = tf.cast(tf.stack([tf.ones_like(kept), 1.0 - kept], axis=1), tf.float32)
        for kind, (name, slot, offset) in self._slots.items():
            rows = encoded[name][..., slot]
            at = positives if rows.shape.rank == 2 else positives[:, :1]
            rows = tf.gather_nd(rows, at) - offset
            self.variables[kind].scatter_add(tf.IndexedSlices(counts, rows))

    def read(self) -> dict[str, float]:
        """Returns the sums since the last reading, by the names in `SUMS`, and starts anew."""
        window = self.variables["window"]
        sums = dict(zip(SUMS, window.numpy().tolist(), strict=True))
        window.assign(tf.zeros_like(window))
        return sums

    def read_rows(self) -> dict[str, RowCounts]:
        """Returns the counts of `GROUPED` since they were last read, and starts anew."""
        counts = {}
        for kind in self._slots:
            variable = self.variables[kind]
            counts[kind] = RowCounts(*variable.numpy().T)
            variable.assign(tf.zeros_like(variable))
        return counts


def _zeros(shape: list[int], dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(shape, dtype), trainable=False, name=f"denoising_{name}")


def _slot(features: tuple[Feature, ...], name: str) -> int | None:
    """Returns where the value of a feature stands among the rows of its group."""
    at = 0
    for feature in features:
        if feature.name == name and feature.max_values == 1:
            return at
        at += feature.max_values
    return None
