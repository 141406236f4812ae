"""Plain and compiled training steps of DIN on prepared logs, whose histories are mostly padding."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.logs import log_folder
from benchmarks.measure import Report
from tfrec_feedback.benchmark.suites import find_suite, suite_data
from tfrec_feedback.data.dataset import num_batches, request_dataset
from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.models import build_model
from tfrec_feedback.optimizers import LazyAdam


def run(
    suites: Sequence[str] = ("simulated", "kuairand-pure", "kuairand-27k-feedback"),
    batch_sizes: Sequence[int] = (64, 256),
    most_steps: int = 160,
    at_once: int = 20,
    rounds: int = 5,
) -> Report:
    """Times `fit` on each log, plain and compiled in turn.

    Args:
        suites: names; those whose log this machine lacks are left out.
        batch_sizes: requests a step.
        most_steps: steps of a timed `fit`; fewer where an epoch has fewer.
        at_once: steps an execution.
        rounds: timed rounds; medians are reported.
    """
    report = Report(
        f"DIN training on prepared logs, {at_once} steps an execution",
        ["log", "batch", "steps", "events valid", "plain CPU s", "compiled CPU s", "speed-up"],
        notes=[
            "Medians; batches encoded before. Valid: share of history positions that hold an",
            "event, batches as they come. Compiling, before the first timed step, is not counted.",
        ],
    )
    for name in suites:
        suite = find_suite(name)
        folder = log_folder(suite.log) if suite.log else None
        if suite.log and folder is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            manifest = suite_data(suite, Path(scratch) / "data", folder.parent if folder else None)
            for size in batch_sizes:
                steps = min(num_batches(manifest, "train", size), most_steps) // at_once * at_once
                if steps:
                    cells = _timed(manifest, size, steps, at_once, rounds)
                    report.rows.append([name, size, steps, *cells])
    return report


def _timed(manifest: Manifest, size: int, steps: int, at_once: int, rounds: int) -> list[object]:
    calls, seconds = {}, {}
    for way in ("plain", "compiled"):
        model = build_model("din", manifest.schema().without_sessions())
        model.compiled_training = way == "compiled"
        model.compile(LazyAdam(), steps_per_execution=at_once)
        data = request_dataset(manifest, "train", size, shuffle_seed=0, encoder=model.encoder)
        data = data.take(steps).cache()
        calls[way] = model, data.apply(tf.data.experimental.assert_cardinality(steps))
        seconds[way] = []
    # The first round traces, compiles and fills the cache.
    for _ in range(rounds + 1):
        for way, (model, data) in calls.items():
            start = time.process_time()
            model.fit(data, verbose=0)
            seconds[way].append(time.process_time() - start)
    plain, compiled = (float(np.median(found[1:])) for found in seconds.values())
    valid = positions = 0
    for encoded, *_ in calls["plain"][1]:
        for history in manifest.schema().histories:
            valid += int(tf.reduce_sum(encoded[history.length]))
            positions += int(tf.size(encoded[f"{history.name}_rows"][..., 0]))
    return [f"{valid / positions:.0%}", plain, compiled, f"{plain / compiled:.2f}"]
