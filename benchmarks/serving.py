"""One request with many candidates: latency and size, against one row a candidate."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import Report, interleaved_medians
from benchmarks.workload import random_lengths, synthetic_request, synthetic_schema
from serving import wire
from serving.client import FeedbackClient
from serving.tensors import to_proto
from tfrec_feedback.export import publish
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Schema

_NAME = "dfn"


def run(num_candidates: int = 100, embedding_dim: int = 64, repeats: int = 100) -> Report:
    """Publishes DFN with random weights and asks it for the scores of one request.

    Args:
        num_candidates: N.
        embedding_dim: d.
        repeats: timed requests a way.
    """
    schema = synthetic_schema()
    rng = np.random.default_rng(0)
    request = synthetic_request(rng, num_candidates, random_lengths(rng, 30, full=True))
    batch = encode_requests(schema, [request])
    rows = rows_of(schema, batch)
    with tempfile.TemporaryDirectory() as base:
        version = publish(build_model("dfn", schema, embedding_dim=embedding_dim), base, version=1)
        loaded = tf.saved_model.load(str(version))
        with _server(base) as target, FeedbackClient(target, _NAME) as client:
            seconds = interleaved_medians(
                {
                    "SavedModel, one request": _bare(loaded, "rank", batch),
                    "SavedModel, one row a candidate": _bare(loaded, "predict_rows", rows),
                    "gRPC, one request": lambda: client.rank_many([request]),
                },
                repeats,
                warmup=5,
            )
    size, rows_size = message_bytes(batch, "rank"), message_bytes(rows, "predict_rows")
    report = Report(
        f"One request with {num_candidates} candidates, T = 30, d = {embedding_dim}",
        ["way", "p50 ms", "request bytes"],
        notes=[
            "The server is the embedded one, in a process of its own on this machine; gRPC "
            "includes encoding the request in the client. One row a candidate is "
            f"{rows_size / size:.0f} times the bytes."
        ],
    )
    sizes = (size, rows_size, size)
    for (way, value), length in zip(seconds.items(), sizes, strict=True):
        report.rows.append([way, 1e3 * value, length])
    return report


def rows_of(schema: Schema, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns one request as the rows of `predict_rows`: everything of the user N times.

    Args:
        schema: of the request.
        batch: `encode_requests` of one request.
    """
    candidate = {spec.name for spec in schema.inputs() if "N" in spec.axes}
    count = int(batch["num_candidates"][0])
    return {
        spec.name: batch[spec.name][0]
        if spec.name in candidate
        else np.repeat(batch[spec.name], count, axis=0)
        for spec in schema.row_inputs()
    }


def message_bytes(batch: dict[str, np.ndarray], signature: str) -> int:
    """Returns the size of the message that carries a batch."""
    message = wire.PredictRequest(model_spec=wire.ModelSpec(name=_NAME, signature_name=signature))
    for name, array in batch.items():
        message.inputs[name].CopyFrom(to_proto(array))
    return len(message.SerializeToString())


def _bare(loaded: Any, signature: str, batch: dict[str, np.ndarray]) -> Callable[[], Any]:
    function = loaded.signatures[signature]
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    return lambda: function(**tensors)["ctr"].numpy()


@contextlib.contextmanager
def _server(base: str) -> Iterator[str]:
    """Runs the embedded server and yields its target."""
    command = [sys.executable, "-m", "serving.server", "--model-base-path", base]
    command += ["--model-name", _NAME, "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(f"The server ended with exit code {process.wait()} before it began.")
        yield json.loads(line)["target"]
    finally:
        process.terminate()
        process.wait(timeout=60)
