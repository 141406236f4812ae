"""How fast models train and answer, measured side by side."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.benchmark.cells import Timing, numbers_or_nan, numbers_or_null
from tfrec_feedback.config import Config
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.data.manifest import Manifest, write_atomically
from tfrec_feedback.denoising.recorder import DenoisingRecorder
from tfrec_feedback.evaluation import scoring_function
from tfrec_feedback.models import build_model
from tfrec_feedback.runs import model_schema
from tfrec_feedback.training import make_optimizer

NUM_CANDIDATES = 100
"""Candidates of the request whose latency is taken."""
_REQUESTS = 1024


def time_models(
    configs: Mapping[str, Config],
    manifest: Manifest,
    *,
    batches: int = 3,
    rounds: int = 7,
) -> dict[str, Timing]:
    """Times training steps and the scoring of one request, of all models in turn.

    Models take turns, in reversed order every other round, so that whatever else the machine does
    hits all of them alike.

    Args:
        configs: a run's configuration for each label.
        manifest: prepared data.
        batches: of the train split, at the configured size; read and encoded before the clock
            starts.
        rounds: timed rounds; one more before them is not timed.

    Returns:
        Medians over the rounds, by label. Samples are candidates; a request is scored from raw
        features, as a server does. NaN for training with `train.steps_at_once`.
    """
    request = request_of(manifest, NUM_CANDIDATES)
    models = {label: _model(config, manifest) for label, config in configs.items()}
    steps = {
        label: _steps(model, configs[label], manifest, batches)
        for label, model in models.items()
        # Single steps would say nothing about a program of several.
        if configs[label].train.steps_at_once == 1
    }
    answers = {label: _answer(model, request) for label, model in models.items()}
    training = interleaved_medians({label: step for label, (step, _) in steps.items()}, rounds)
    latency = interleaved_medians(answers, 3 * rounds)
    speeds = {label: candidates / training[label] for label, (_, candidates) in steps.items()}
    return {label: Timing(speeds.get(label, math.nan), 1e3 * latency[label]) for label in models}


def save_timings(path: Path, timings: Mapping[str, Timing]) -> None:
    """Writes timings as JSON."""
    described = {
        label: numbers_or_null(dataclasses.asdict(timing)) for label, timing in timings.items()
    }
    write_atomically(path, (json.dumps(described, indent=2) + "\n").encode("utf-8"))


def load_timings(path: Path) -> dict[str, Timing]:
    """Reads what `save_timings` wrote; nothing where there is no file."""
    if not path.is_file():
        return {}
    described = json.loads(path.read_text(encoding="utf-8"))
    return {label: Timing(**numbers_or_nan(timing)) for label, timing in described.items()}


def request_of(manifest: Manifest, num_candidates: int) -> dict[str, tf.Tensor]:
    """Returns one test request, its candidates repeated until there are enough.

    Of the first batch of `_REQUESTS` the one with the longest histories: short ones would flatter
    the models that read them.

    Args:
        manifest: prepared data.
        num_candidates: N.

    Returns:
        The raw tensors of `manifest.schema().inputs()`, R = 1.
    """
    schema = manifest.schema()
    batch = next(iter(request_dataset(manifest, "test", _REQUESTS)))[0]
    none = tf.zeros_like(batch["num_candidates"])
    row = int(tf.argmax(sum((batch[history.length] for history in schema.histories), none)))
    features = {name: values[row : row + 1] for name, values in batch.items()}
    own = max(int(features["num_candidates"][0]), 1)
    chosen = np.arange(num_candidates) % own
    for spec in schema.inputs():
        if spec.role == "candidate" and "N" in spec.axes:
            features[spec.name] = tf.gather(features[spec.name], chosen, axis=1)
    return {**features, "num_candidates": tf.constant([num_candidates], tf.int64)}


def interleaved_medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each call; see `time_models`.

    Args:
        calls: each must wait for its result.
        rounds: timed rounds, after one that is not.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    order = list(calls)
    for _ in range(rounds):
        for label in order:
            start = time.perf_counter()
            calls[label]()
            seconds[label].append(time.perf_counter() - start)
        order.reverse()
    return {label: statistics.median(values) for label, values in seconds.items()}


def _model(config: Config, manifest: Manifest) -> tf.keras.Model:
    """Builds a model whose steps are those that `tfrec_feedback.training.train` takes."""
    params = config.model.params()
    if (loss := config.loss.options()) is not None:
        params["loss"] = loss
    model = build_model(config.model.name, model_schema(config, manifest), **params)
    DenoisingRecorder(model, config.train.diagnostics_steps, manifest.knows_false_positives)
    model.micro_batches = config.train.micro_batches
    if config.train.compiled:
        model.compiled_training = True
    model.compile(make_optimizer(config.optimizer))
    return model


def _steps(
    model: tf.keras.Model, config: Config, manifest: Manifest, batches: int
) -> tuple[Callable[[], None], int]:
    """Returns a call that trains on a few batches, and the number of their candidates."""
    dataset = request_dataset(
        manifest,
        "train",
        config.data.batch_size,
        encoder=model.encoder,
        samples=model.user_memory is not None and bool(model.user_memory.sampled),
        truth=model.denoising_monitor is not None and manifest.knows_false_positives,
    )
    kept = list(dataset.take(batches))
    candidates = int(sum(int(tf.reduce_sum(batch[0]["num_candidates"])) for batch in kept))
    step = tf.function(model.train_step, input_signature=[dataset.element_spec])

    def call() -> None:
        for batch in kept:
            step(batch)["loss"].numpy()

    return call, candidates


def _answer(model: tf.keras.Model, request: Mapping[str, tf.Tensor]) -> Callable[[], None]:
    score = scoring_function(model)
    features = {spec.name: request[spec.name] for spec in model.schema.inputs()}

    def call() -> None:
        score(features)["ctr"].numpy()

    return call
