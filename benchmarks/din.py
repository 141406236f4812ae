"""Throughput of DIN's training in samples per CPU second, and where the seconds go.

One user field, one item field and a click history of 30 items, all full. A CPU second is a second
of one core: time that several threads spend counts as often as there are threads, so the figure
does not grow with the number of cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import Report
from tfrec_feedback.models import build_model
from tfrec_feedback.optimizers import LazyAdam
from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema

USERS, ITEMS, LENGTH = 20_000, 10_000, 30
PEER = {(16, 1024): 21_000, (16, 64): 12_500, (64, 1024): 8_600, (64, 64): 5_100}
"""Samples per CPU second of the fastest public DIN known, by embedding width and batch size."""
FORMS: dict[str, dict[str, Any]] = {
    "36": {},
    "80-40": {"attention_units": (80, 40), "deep_units": (256, 128, 64)},
}
"""Models that are timed, by the widths of their attention: the default, and a common preset."""
PHASES = ("input", "forward", "backward", "optimiser")


def run(
    embedding_dims: Sequence[int] = (16, 64),
    batch_sizes: Sequence[int] = (64, 1024),
    candidates: Sequence[int] = (1, 10),
    forms: Sequence[str] = tuple(FORMS),
    samples: int = 12_000,
    rounds: int = 3,
) -> Report:
    """Times every combination.

    Args:
        embedding_dims: widths of a field.
        batch_sizes: candidates a step; a request of N candidates counts N.
        candidates: N.
        forms: keys of `FORMS`.
        samples: candidates trained on in a timed round.
        rounds: timed rounds; the median is reported.
    """
    report = Report(
        f"DIN training: one user field, one item field, {LENGTH} clicks",
        [
            *("attention", "width", "batch", "N", "samples/CPU s", "of peer"),
            *(f"{phase} %" for phase in PHASES),
        ],
        notes=[
            "Medians of samples per CPU second; whole steps with LazyAdam, fed from memory by",
            "tf.data, which cuts raw requests and encodes them. Batch: about so many candidates a",
            "step, in whole requests. Shares: differences of medians.",
        ],
    )
    for form in forms:
        for width in embedding_dims:
            for batch in batch_sizes:
                for count in candidates:
                    requests = max(batch // count, 1)
                    seconds = phases(FORMS[form], width, requests, count, samples, rounds)
                    whole = seconds["whole"]
                    rate = 1.0 / whole
                    peer = PEER.get((width, batch))
                    report.rows.append(
                        [
                            *(form, width, requests * count, count, rate),
                            "-" if peer is None else f"{rate / peer:.2f}",
                            *(f"{seconds[phase] / whole:.0%}" for phase in PHASES),
                        ]
                    )
    return report


def schema() -> Schema:
    """Returns the schema: one user field, one item field, one history."""
    return Schema(
        context=(Feature("user_id", Identity(USERS)),),
        candidate=(Feature("item_id", Identity(ITEMS)),),
        histories=(FeedbackSequence("click", ("item_id",), LENGTH),),
    )


def dataset(encoder: Any, requests: int, count: int, steps: int) -> tf.data.Dataset:
    """Returns `steps` batches of random requests, cut and encoded while training runs.

    Args:
        encoder: the model's.
        requests: a batch.
        count: candidates a request.
        steps: batches.
    """
    rng = np.random.default_rng(0)
    rows = 20 * requests
    shape = (rows, count)
    features = {
        "user_id": rng.integers(USERS, size=rows),
        "item_id": rng.integers(ITEMS, size=shape),
        "num_candidates": np.full(rows, count),
        "click_item_id": rng.integers(ITEMS, size=(rows, LENGTH)),
        "click_length": np.full(rows, LENGTH),
    }
    clicks = rng.integers(0, 2, shape).astype(np.float32)
    labels = {"ctr": clicks, "dislike": np.zeros_like(clicks)}
    held = tf.nest.map_structure(tf.constant, (features, labels))

    def cut(step: tf.Tensor) -> Any:
        start = requests * tf.cast(step % 20, tf.int32)
        raw, of_labels = tf.nest.map_structure(lambda x: x[start : start + requests], held)
        return encoder(raw), of_labels

    return tf.data.Dataset.range(steps).map(cut).prefetch(2)


def phases(
    options: dict[str, Any], width: int, requests: int, count: int, samples: int, rounds: int
) -> dict[str, float]:
    """Returns CPU seconds a sample of every phase and of the whole, medians of interleaved rounds.

    Forward is the loss; backward what the gradients take beyond it; the optimiser what a whole
    step takes beyond those; input what a step fed by tf.data takes beyond one on a batch at hand.

    Args:
        options: of the model.
        width: of a field.
        requests: a step.
        count: candidates a request.
        samples: of a round.
        rounds: timed rounds.
    """
    model = build_model("din", schema(), embedding_dim=width, **options)
    model.compile(LazyAdam())
    steps = max(samples // (requests * count), 3)
    data = dataset(model.encoder, requests, count, steps)
    batch = next(iter(data))
    step = tf.function(model.train_step, reduce_retracing=True)
    calls: dict[str, Callable[[], None]] = {
        "forward": _repeated(_forward(model), batch, steps),
        "gradients": _repeated(_gradients(model), batch, steps),
        "step": _repeated(step, batch, steps),
        "fed step": lambda: _drain(step, data),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    # The first round traces.
    median = {name: float(np.median(found[1:])) for name, found in seconds.items()}
    ends = [0.0, *(median[name] for name in ("forward", "gradients", "step", "fed step"))]
    trained = steps * requests * count
    parts = np.maximum(np.diff(ends), 0.0) / trained
    found = dict(zip(("forward", "backward", "optimiser", "input"), parts.tolist(), strict=True))
    return {**found, "whole": median["fed step"] / trained}


def _forward(model: tf.keras.Model) -> Callable[..., Any]:
    return tf.function(lambda batch: model.compute_loss(batch, training=True))


def _gradients(model: tf.keras.Model) -> Callable[..., Any]:
    @tf.function
    def gradients(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True)
        return tape.gradient(loss, model.trainable_variables)

    return gradients


def _repeated(function: Callable[..., Any], batch: Any, times: int) -> Callable[[], None]:
    def call() -> None:
        result: Any = None
        for _ in range(times):
            result = function(batch)
        tf.nest.flatten(result, expand_composites=True)[0].numpy()

    return call


def _drain(step: Callable[..., Any], data: tf.data.Dataset) -> None:
    result: Any = None
    for batch in data:
        result = step(batch)
    result["loss"].numpy()
