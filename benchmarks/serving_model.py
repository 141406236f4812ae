"""A small DFN to serve, good requests for all its signatures, and a server's process to watch."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import rows_of
from benchmarks.workload import HISTORIES, random_lengths, synthetic_request, synthetic_schema
from serving import server_wire, wire
from serving.loader import LoadedModel
from serving.tensors import to_proto
from tfrec_feedback.export import publish
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Schema

NAME = "dfn"
_LONGEST = 10


def small_schema() -> Schema:
    """Returns the schema of the model."""
    return synthetic_schema(_LONGEST, HISTORIES)


def publish_small_model(base: Path, version: int = 1) -> Path:
    """Publishes a model with random weights; returns its folder."""
    return publish(build_model("dfn", small_schema(), embedding_dim=8), base, version=version)


def publish_copy(version: Path, base: Path, number: int) -> Path:
    """Publishes a copy of a version, complete before it has its name."""
    hidden = base / f".tmp-{number}"
    shutil.copytree(version, hidden)
    return hidden.rename(base / str(number))


def good_requests(model: LoadedModel, count: int, candidates: int) -> list[tuple[Any, Any]]:
    """Returns methods and messages of good requests, of every signature the model has.

    Args:
        model: asked for its signatures.
        count: users that are made up.
        candidates: at most, of each.
    """
    schema, rng = small_schema(), np.random.default_rng(0)
    found: list[tuple[Any, Any]] = []
    for _ in range(count):
        lengths = random_lengths(rng, _LONGEST, full=False)
        request = synthetic_request(rng, int(rng.integers(1, candidates + 1)), lengths)
        arrays = encode_requests(schema, [request])
        record = np.array([record_of(arrays)], object)
        ways = {
            "serving_default": arrays,
            "rank": arrays,
            "predict_rows": rows_of(schema, arrays),
            "rank_examples": {"examples": record},
        }
        found += [
            (wire.PREDICT, predict_message(batch, name))
            for name, batch in ways.items()
            if name in model.signatures
        ]
        found += _example_requests(model, record.tolist())
    return found


def predict_message(batch: Mapping[str, np.ndarray], signature: str) -> Any:
    """Returns the message that carries a batch."""
    message = wire.PredictRequest(model_spec={"name": NAME, "signature_name": signature})
    for name, array in batch.items():
        to_proto(array, message.inputs[name])
    return message


def record_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns one encoded request as the record that the log's files hold."""
    example = wire.Example()
    for name, array in arrays.items():
        feature, values = example.features.feature[name], np.ravel(array[0]).tolist()
        kind = "float_list" if array.dtype.kind == "f" else "int64_list"
        getattr(feature, kind).value.extend(values)
    return example.SerializeToString()


def _example_requests(model: LoadedModel, records: Sequence[bytes]) -> list[tuple[Any, Any]]:
    wanted = {"classify": server_wire.CLASSIFY, "regress": server_wire.REGRESS}
    have = {name: method for name, method in wanted.items() if name in model.signatures}
    inputs = {"example_list": {"examples": records}}
    found = [
        (method, method.request(model_spec={"name": NAME, "signature_name": name}, input=inputs))
        for name, method in have.items()
    ]
    tasks = [
        {
            "model_spec": {"name": NAME, "signature_name": name},
            "method_name": f"tensorflow/serving/{name}",
        }
        for name in have
    ]
    method = server_wire.MULTI_INFERENCE
    # Without such signatures it is refused, which is an answer too.
    return [*found, (method, method.request(tasks=tasks, input=inputs))] if have else found


def quiet() -> None:
    """Silences what TensorFlow says of ways that are to be deprecated."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


class ServerProcess:
    """`python -m serving.server`, running.

    Attributes:
        target: host and port.
        process: the process.
    """

    def __init__(self, process: subprocess.Popen[str], target: str):
        self.process, self.target = process, target

    def alive(self) -> bool:
        """Returns whether it has not ended."""
        return self.process.poll() is None

    def rss_mib(self) -> float:
        """Returns its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def serving(*options: str) -> Iterator[ServerProcess]:
    """Runs the server on a free port, and stops it.

    Args:
        options: of its command line; they name the models.

    Raises:
        RuntimeError: when it does not start; holds what it said.
    """
    command = [sys.executable, "-m", "serving.server", "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                log.seek(0)
                raise RuntimeError(f"The server did not start: {log.read()[-2000:]}")
            yield ServerProcess(process, json.loads(line)["target"])
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
