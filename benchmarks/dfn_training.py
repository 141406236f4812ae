"""DFN training: the user's side once a request, against once a candidate."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import Report, interleaved_seconds, paired_ratios
from benchmarks.naive import naive_copy, one_candidate_a_row
from benchmarks.workload import (
    random_labels,
    random_lengths,
    synthetic_request,
    synthetic_schema,
)
from tfrec_feedback.models import build_model
from tfrec_feedback.optimizers import LazyAdam
from tfrec_feedback.requests import encode_requests

_REQUESTS = {1: 256, 10: 128, 50: 32}
_TOLERANCE = 1e-5
_SPREAD = 30.0


def run(
    requests: dict[int, int] | None = None,
    history_length: int = 30,
    embedding_dim: int = 64,
    repeats: int = 11,
) -> Report:
    """Times full training steps of both forms on the same requests.

    Args:
        requests: requests a batch, by candidates a request.
        history_length: T.
        embedding_dim: D.
        repeats: timed steps a form.

    Raises:
        RuntimeError: when the two forms differ.
    """
    sizes = _REQUESTS if requests is None else requests
    report = Report(
        f"DFN training step, T = {history_length}, d = {embedding_dim}, H = 4, one candidate = "
        "one sample",
        [
            *("histories", "N", "requests", "shared ms", "naive ms", "shared /s", "naive /s"),
            *("gain", "quartiles"),
        ],
        notes=[
            "Forward, backward and LazyAdam. Gain: naive over shared time of the same round, "
            "median and quartiles; it depends on the requests a batch. Both forms share the "
            "weights and score alike."
        ],
    )
    schema = synthetic_schema(history_length)
    for full in (True, False):
        for num_candidates, count in sizes.items():
            batch = encoded_batch(schema, count, num_candidates, full)
            seconds = _compare(schema, batch, embedding_dim, repeats)
            shared, naive = (statistics.median(seconds[name]) for name in ("shared", "naive"))
            low, gain, high = paired_ratios(seconds["naive"], seconds["shared"])
            samples = count * num_candidates
            report.rows.append(
                [
                    *("full" if full else "random", num_candidates, count),
                    *(1e3 * shared, 1e3 * naive, samples / shared, samples / naive),
                    *(gain, f"{low:.2f} to {high:.2f}"),
                ]
            )
    return report


def encoded_batch(schema: Any, requests: int, num_candidates: int, full: bool) -> Any:
    """Returns `(encoded features, labels, weights)` of random requests.

    Args:
        schema: `synthetic_schema`.
        requests: R.
        num_candidates: N.
        full: whether histories have all T events.
    """
    rng = np.random.default_rng(0)
    longest = schema.histories[0].max_length
    drawn = [
        synthetic_request(rng, num_candidates, random_lengths(rng, longest, full))
        for _ in range(requests)
    ]
    model = build_model("dfn_no_feedback", schema, embedding_dim=1)
    encoded = model.encode(
        {name: tf.constant(value) for name, value in encode_requests(schema, drawn).items()}
    )
    shape = (requests, num_candidates)
    return encoded, random_labels(rng, shape), tf.ones(shape)


def _compare(schema: Any, batch: Any, embedding_dim: int, repeats: int) -> dict[str, list[float]]:
    shared = build_model("dfn", schema, embedding_dim=embedding_dim)
    # Fresh embeddings are so small that all attention is even, and even a wrong form would pass.
    shared.embedding.embeddings.assign(shared.embedding.embeddings * _SPREAD)
    naive = naive_copy(shared)
    rows = one_candidate_a_row(*batch)
    check_equal(shared(batch[0])["ctr"], naive(rows[0])["ctr"])
    steps = {"shared": _step(shared, batch), "naive": _step(naive, rows)}
    return interleaved_seconds(steps, repeats)


def check_equal(shared: tf.Tensor, naive: tf.Tensor) -> None:
    """Raises when the logits of the two forms differ.

    Args:
        shared: `[R, N]`.
        naive: `[R * N, 1]`.
    """
    difference = float(tf.reduce_max(tf.abs(tf.reshape(shared, [-1, 1]) - naive)))
    if not difference <= _TOLERANCE:
        raise RuntimeError(
            f"The shared and the naive DFN differ by {difference:.2g} in a logit; expected at "
            f"most {_TOLERANCE}. Timing them would compare different models."
        )


def _step(model: tf.keras.Model, batch: Any) -> Callable[[], Any]:
    model.compile(LazyAdam())
    step = tf.function(model.train_step)

    def call() -> None:
        step(batch)["loss"].numpy()

    return call
