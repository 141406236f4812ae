"""Throughput of DIN's training in samples per CPU second, with plain and with compiled steps.

One user field, one item field and a click history of 30 items, all full. A CPU second is a second
of one core: time that several threads spend counts as often as there are threads, so the figure
does not grow with the number of cores.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import Report
from tfrec_feedback.layers.given_vectors import all_rows, with_vectors
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
"""Of a compiled step, each what it takes beyond those before it."""
AT_ONCE = 20
"""Steps that one execution takes, and batches that are encoded at once."""


def run(
    embedding_dims: Sequence[int] = (16, 64),
    batch_sizes: Sequence[int] = (64, 1024),
    candidates: Sequence[int] = (1, 10),
    forms: Sequence[str] = tuple(FORMS),
    samples: int = 40_000,
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
    with contextlib.suppress(RuntimeError):  # TensorFlow has started and keeps its threads.
        tf.config.threading.set_intra_op_parallelism_threads(1)
    report = Report(
        f"DIN training: one user field, one item field, {LENGTH} clicks",
        [
            *("attention", "width", "batch", "N", "plain/CPU s", "of peer"),
            *("compiled/CPU s", "of peer", *PHASES),
        ],
        notes=[
            "Medians of samples per CPU second, one thread an operation; whole steps with",
            f"LazyAdam, {AT_ONCE} an execution, fed from memory by tf.data, which encodes the raw",
            f"requests of {AT_ONCE} steps at once and cuts them; an epoch's start is not timed.",
            "Compiled: with model.compiled_training = True, the steps of an execution being one",
            "program. Batch: about so many candidates a step, in whole requests. Shares are of",
            "compiled steps, differences of medians.",
        ],
    )
    for form in forms:
        for width in embedding_dims:
            for batch in batch_sizes:
                for count in candidates:
                    requests = max(batch // count, 1)
                    seconds = phases(FORMS[form], width, requests, count, samples, rounds)
                    cells = _cells(seconds, PEER.get((width, batch)))
                    report.rows.append([form, width, requests * count, count, *cells])
    return report


def _cells(seconds: dict[str, float], peer: int | None) -> list[Any]:
    cells: list[Any] = []
    for way in ("plain", "compiled"):
        rate = 1.0 / seconds[way]
        cells += [rate, "-" if peer is None else f"{rate / peer:.2f}"]
    ends = [0.0, *(seconds[name] for name in ("input", "forward", "gradients", "compiled"))]
    return [*cells, *(f"{max(share, 0.0):.0%}" for share in np.diff(ends) / ends[-1])]


def schema() -> Schema:
    """Returns the schema: one user field, one item field, one history."""
    return Schema(
        context=(Feature("user_id", Identity(USERS)),),
        candidate=(Feature("item_id", Identity(ITEMS)),),
        histories=(FeedbackSequence("click", ("item_id",), LENGTH),),
    )


def dataset(encoder: Any, requests: int, count: int, steps: int) -> tf.data.Dataset:
    """Returns `steps` batches of random requests, encoded and cut while training runs.

    Args:
        encoder: the model's.
        requests: a batch.
        count: candidates a request.
        steps: batches, in multiples of `AT_ONCE`.
    """
    rng = np.random.default_rng(0)
    rows = AT_ONCE * requests
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

    def encode(_: tf.Tensor) -> Any:
        raw, of_labels = held
        return encoder(raw), of_labels

    data = tf.data.Dataset.range(steps // AT_ONCE).map(encode).rebatch(requests)
    return data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def phases(
    options: dict[str, Any], width: int, requests: int, count: int, samples: int, rounds: int
) -> dict[str, float]:
    """Returns CPU seconds a sample: medians of interleaved rounds.

    Plain and compiled are whole steps; input is the data read without them, forward the losses of
    compiled steps as well, and gradients their gradients as well.

    Args:
        options: of the model.
        width: of a field.
        requests: a step.
        count: candidates a request.
        samples: of a round.
        rounds: timed rounds.
    """
    steps = AT_ONCE * max(samples // (requests * count * AT_ONCE), 1)
    calls: dict[str, Callable[[Any], None]] = {}
    for way in ("plain", "compiled"):
        model = build_model("din", schema(), embedding_dim=width, **options)
        model.compiled_training = way == "compiled"
        model.compile(LazyAdam(), steps_per_execution=AT_ONCE)
        model.build_weights()
        data = dataset(model.encoder, requests, count, steps)
        calls[way] = _executions(model.make_train_function(), steps)
    calls["input"] = _executions(_parts(model, "input"), steps)
    calls["forward"] = _executions(_parts(model, "forward"), steps)
    calls["gradients"] = _executions(_parts(model, "gradients"), steps)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            # Outside the time: tf.data takes as long to plan an epoch as several steps take, but
            # an epoch of a log has thousands.
            batches = iter(data)
            start = time.process_time()
            call(batches)
            seconds[name].append(time.process_time() - start)
    # The first round traces and compiles.
    trained = steps * requests * count
    return {name: float(np.median(found[1:])) / trained for name, found in seconds.items()}


def _parts(model: tf.keras.Model, until: str) -> Callable[[Any], Any]:
    """Compiled steps, as many as one execution takes, without their updates.

    Args:
        model: whose steps.
        until: `input`, `forward` or `gradients`: what they end with.
    """
    table = model.embedding.embeddings
    groups = ["context", "candidate", *model.embedding.histories]
    dense = [variable for variable in model.trainable_variables if variable is not table]

    @tf.function(jit_compile=True)
    def parts(vectors: tf.Tensor, batches: Any) -> Any:
        total = tf.constant(0.0)
        sums = [tf.zeros_like(x) for x in (*dense, vectors[0])]
        for step in tf.range(AT_ONCE):
            batch = tf.nest.map_structure(lambda x, i=step: x[i], batches)
            with tf.GradientTape() as tape:
                own = vectors[step]
                tape.watch(own)
                given = with_vectors(batch[0], groups, own)
                loss = model.objective((given, *batch[1:]), training=True).loss
            total += loss
            if until == "gradients":
                found = tape.gradient(loss, [*dense, own])
                sums = [x + y for x, y in zip(sums, found, strict=True)]
        return total, sums

    @tf.function
    def several(iterator: Any) -> dict[str, tf.Tensor]:
        batches = [next(iterator) for _ in range(AT_ONCE)]
        stacked = tf.nest.map_structure(lambda *x: tf.stack(x), *batches)
        if until == "input":
            return {"loss": tf.reduce_sum(stacked[1]["ctr"])}
        rows = tf.stack([all_rows(batch[0], groups) for batch in batches])
        return {"loss": parts(tf.gather(table, rows), stacked)[0]}

    return several


def _executions(several: Callable[[Any], Any], steps: int) -> Callable[[Any], None]:
    """Returns what takes so many steps by calls of what takes `AT_ONCE` of them."""

    def call(batches: Any) -> None:
        for _ in range(steps // AT_ONCE):
            results = several(batches)
        results["loss"].numpy()

    return call
