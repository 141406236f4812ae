"""One optimiser step on a large embedding table of which a batch touches few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from benchmarks.measure import Report, interleaved_medians
from tfrec_feedback.optimizers import LazyAdam


def run(rows: int = 1_000_000, width: int = 32, touched: int = 5_000, repeats: int = 15) -> Report:
    """Times LazyAdam, Adagrad and Adam on the same sparse gradient.

    Args:
        rows: of the table.
        width: of a row.
        touched: rows of the gradient, repetitions included.
        repeats: timed steps an optimiser.
    """
    table = tf.Variable(tf.random.normal([rows, width], stddev=0.01), name="table")
    indices = tf.random.uniform([touched], 0, rows, tf.int32, seed=0)
    gradient = tf.IndexedSlices(
        tf.random.normal([touched, width], stddev=0.01), indices, tf.constant([rows, width])
    )
    optimizers = {
        "LazyAdam": LazyAdam(),
        "Adagrad": tf.keras.optimizers.Adagrad(),
        "Adam": tf.keras.optimizers.Adam(jit_compile=False),
    }
    steps = {name: _step(optimizer, gradient, table) for name, optimizer in optimizers.items()}
    seconds = interleaved_medians(steps, repeats)
    report = Report(
        f"Optimiser step, table {rows:,} x {width}, {touched:,} rows touched",
        ["optimiser", "ms a step", "times LazyAdam"],
        notes=["Adagrad's and LazyAdam's work grows with the batch, Adam's with the table."],
    )
    report.rows = [
        [name, 1e3 * value, value / seconds["LazyAdam"]] for name, value in seconds.items()
    ]
    return report


def _step(optimizer: Any, gradient: tf.IndexedSlices, table: tf.Variable) -> Callable[[], Any]:
    optimizer.build([table])

    @tf.function
    def step() -> tf.Tensor:
        optimizer.apply_gradients([(gradient, table)])
        return optimizer.iterations

    return lambda: step().numpy()
