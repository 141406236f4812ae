"""Does training wait for data? Time in `next(batches)` against time in the step."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks.logs import KUAIRAND, in_own_process, log_folder, prepare_log
from benchmarks.measure import Report
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.models import build_model
from tfrec_feedback.optimizers import LazyAdam

_SIMULATION = {"num_users": 2_000, "num_items": 1_000, "num_days": 14}
_BATCHES_ALONE = 250


def run(
    simulation: dict[str, int] | None = None,
    batch_size: int = 256,
    embedding_dim: int = 64,
    steps: int = 40,
    real: bool = True,
) -> Report:
    """Trains DFN on prepared logs and clocks both sides of the loop.

    Args:
        simulation: sizes of the simulated log.
        batch_size: requests a step.
        embedding_dim: d.
        steps: measured steps.
        real: whether KuaiRand-Pure is looked for.
    """
    sizes = _SIMULATION if simulation is None else simulation
    logs: list[tuple[str, Path | None, dict[str, int]]] = [("simulated", None, sizes)]
    folder = log_folder(KUAIRAND) if real else None
    if folder is not None:
        logs.append((KUAIRAND, folder, {}))
    report = Report(
        f"Input pipeline, DFN with d = {embedding_dim}, {batch_size} requests a step",
        ["log", "wait ms a step", "step ms", "waiting", "first batch s", "alone requests/s"],
        notes=[
            "Waiting: share of the loop spent in next(batches), after the first batch, which "
            "fills the shuffle buffer. Alone: reading, shuffling, parsing and encoding without "
            "training. Pipeline and training share the processor's cores."
        ],
    )
    for source, path, options in logs:
        with tempfile.TemporaryDirectory() as directory:
            in_own_process(prepare_log, source, path, directory, 2, options)
            report.rows.append([source, *_measure(directory, batch_size, embedding_dim, steps)])
    return report


def _measure(directory: str, batch_size: int, embedding_dim: int, steps: int) -> list[Any]:
    manifest = load_manifest(directory)
    model: Any = build_model("dfn", manifest.schema(), embedding_dim=embedding_dim)
    model.compile(LazyAdam())
    batches = request_dataset(manifest, "train", batch_size, shuffle_seed=0, encoder=model.encoder)
    return [*_clock_training(model, batches, steps), _rate_alone(batches)]


def _clock_training(model: Any, batches: tf.data.Dataset, steps: int) -> list[Any]:
    """Returns milliseconds waiting and stepping, the share of the former, seconds to begin."""
    # One graph for all widths, as `Model.fit` has it.
    step = tf.function(model.train_step, input_signature=[batches.element_spec])
    start = time.perf_counter()
    iterator = iter(batches.repeat())
    first = next(iterator)
    beginning = time.perf_counter() - start
    for batch in (first, next(iterator), next(iterator)):
        step(batch)["loss"].numpy()
    waiting = stepping = 0.0
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(iterator)
        middle = time.perf_counter()
        step(batch)["loss"].numpy()
        waiting += middle - start
        stepping += time.perf_counter() - middle
    share = waiting / (waiting + stepping)
    per_step = [1e3 * seconds / steps for seconds in (waiting, stepping)]
    return [*per_step, f"{share:.1%}", beginning]


def _rate_alone(batches: tf.data.Dataset) -> float:
    """Returns requests a second without training, the beginning included."""
    start = time.perf_counter()
    requests = 0
    for _, _, weights in batches.take(_BATCHES_ALONE):
        requests += int(weights.shape[0])
    return requests / (time.perf_counter() - start)
