"""Serving: what gRPC adds to the bare model call, and what a request saves over rows.

The bare call is a callable of TensorFlow's C++ session, fed numpy arrays in this process; the
server is the embedded one, in a process of its own on the same cores. gRPC includes encoding the
request from Python lists, and decoding the scores.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from benchmarks.measure import Report, interleaved_seconds
from benchmarks.serving_load import swap_report, throughputs
from benchmarks.serving_start import start_report
from benchmarks.workload import synthetic_request, synthetic_schema
from serving import wire
from serving.channel import Channel
from serving.client import FeedbackClient
from serving.loadtest_tune import embedded_server
from serving.tensors import to_proto
from tfrec_feedback.export import publish
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Schema

SIZES = (
    (100, 30, ("click", "unclick", "dislike")),
    (200, 50, ("click", "unclick", "like", "dislike")),
)
"""Candidates, events of each history, and the histories, of the requests that are timed."""
_NAME = "dfn"
_RANK, _ROWS = "serving_default", "predict_rows"
_TIMEOUT = 60.0


def run(
    sizes: Sequence[tuple[int, int, Sequence[str]]] = SIZES,
    embedding_dim: int = 64,
    repeats: int = 200,
    seconds: float = 2.0,
    rounds: int = 5,
    swap_seconds: float = 30.0,
) -> list[Report]:
    """Publishes DFN with random weights and asks it for scores in every way.

    Args:
        sizes: as `SIZES`.
        embedding_dim: d.
        repeats: timed requests a way.
        seconds: of a round of the throughput.
        rounds: of the throughput.
        swap_seconds: of the load that a version is swapped under, at the first size; 0: none.
    """
    latency = Report(
        f"DFN, d = {embedding_dim}: one request at a time",
        ["candidates, histories", "way", "p50 ms", "of bare call", "request bytes"],
        notes=["One row a candidate: the user's part repeated in every row."],
    )
    throughput = Report(
        f"DFN, d = {embedding_dim}: requests a second, callers that wait for their answers",
        ["candidates, histories", "callers", "bare call", "gRPC", "of bare call"],
        notes=[
            f"Median of {rounds} rounds in turn of {seconds:g} s. Callers, client and server share",
            f"{os.cpu_count()} cores.",
        ],
    )
    reports = [latency, throughput]
    for index, (candidates, length, histories) in enumerate(sizes):
        label = f"{candidates}, {len(histories)} x {length}"
        with _published(length, histories, embedding_dim) as (schema, version):
            request = random_request(candidates, length, histories)
            bare = BareModel(version)
            with _served(version) as (target, client):
                ways = _ways(bare, client, target, schema, request)
                latency.rows += _latencies(label, ways, repeats, *_sizes(schema, request))
                one = {"bare": ways["bare call"], "gRPC": ways["gRPC"]}
                for callers in (1, 4):
                    found = throughputs(one, callers, seconds, rounds)
                    ratio = statistics.median(np.divide(found["gRPC"], found["bare"]))
                    rates = [float(statistics.median(found[name])) for name in ("bare", "gRPC")]
                    throughput.rows.append([label, callers, *rates, float(ratio)])
                if index == 0 and swap_seconds:
                    rate = 0.2 * throughput.rows[-1][3]
                    reports.append(
                        swap_report(target, _NAME, [request], version, rate, swap_seconds)
                    )
    return [*reports, start_report()]


class BareModel:
    """A SavedModel as the C++ runtime runs it, without a server.

    Args:
        version: its folder.
    """

    def __init__(self, version: Path):
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=os.cpu_count() or 1
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            tags = [tf.saved_model.SERVING]
            load = tf.compat.v1.saved_model.loader.load
            self._signatures = load(self._session, tags, str(version)).signature_def

    def call(self, signature: str, batch: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """Returns a call of a signature on one batch; it gives the outputs by name."""
        definition = self._signatures[signature]
        inputs, outputs = sorted(definition.inputs), sorted(definition.outputs)
        options = config_pb2.CallableOptions(
            feed=[definition.inputs[name].name for name in inputs],
            fetch=[definition.outputs[name].name for name in outputs],
        )
        # The calling thread runs all of it: several callers get more done so than by sharing.
        options.run_options.inter_op_thread_pool = -1
        run_graph = self._session._make_callable_from_options(options)
        arrays = [batch[name] for name in inputs]
        return lambda: dict(zip(outputs, run_graph(*arrays), strict=True))


def random_request(candidates: int, length: int, histories: Sequence[str]) -> dict[str, Any]:
    """Returns a request whose histories are full."""
    return synthetic_request(np.random.default_rng(0), candidates, dict.fromkeys(histories, length))


def rows_of(schema: Schema, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
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


def predict_message(batch: Mapping[str, np.ndarray], signature: str) -> Any:
    """Returns the message that carries a batch."""
    message = wire.PredictRequest(model_spec=wire.ModelSpec(name=_NAME, signature_name=signature))
    for name, array in batch.items():
        to_proto(array, message.inputs[name])
    return message


def _ways(
    bare: BareModel, client: FeedbackClient, target: str, schema: Schema, request: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    batch = encode_requests(schema, [request])
    rows = rows_of(schema, batch)
    channel = Channel(target)

    def rows_over_grpc() -> Any:
        # Encoded anew every time, as the request is.
        message = predict_message(rows_of(schema, encode_requests(schema, [request])), _ROWS)
        return channel.call(wire.PREDICT, message, time.monotonic() + _TIMEOUT)

    return {
        "bare call": bare.call(_RANK, batch),
        "gRPC": lambda: client.rank_many([request]),
        "bare call, one row a candidate": bare.call(_ROWS, rows),
        "gRPC, one row a candidate": rows_over_grpc,
    }


def _latencies(
    label: str, ways: Mapping[str, Callable[[], Any]], repeats: int, size: int, rows_size: int
) -> list[list[Any]]:
    # Rows take many times longer, and would leave the caches to what follows them.
    names = list(ways)
    seconds: dict[str, list[float]] = {}
    for pair, rounds in ((names[:2], repeats), (names[2:], max(1, repeats // 4))):
        seconds |= interleaved_seconds({name: ways[name] for name in pair}, rounds, warmup=10)
    bare = statistics.median(seconds["bare call"])
    lines = []
    for way, values in seconds.items():
        middle = statistics.median(values)
        length = rows_size if "row" in way else size
        lines.append([label, way, 1e3 * middle, middle / bare, length if "gRPC" in way else "-"])
    return lines


def _sizes(schema: Schema, request: dict[str, Any]) -> tuple[int, int]:
    """Returns the bytes of a request, and of its rows."""
    batch = encode_requests(schema, [request])
    messages = predict_message(batch, _RANK), predict_message(rows_of(schema, batch), _ROWS)
    return messages[0].ByteSize(), messages[1].ByteSize()


@contextlib.contextmanager
def _published(
    length: int, histories: Sequence[str], embedding_dim: int
) -> Iterator[tuple[Schema, Path]]:
    schema = synthetic_schema(length, histories)
    with tempfile.TemporaryDirectory() as base:
        model = build_model("dfn", schema, embedding_dim=embedding_dim)
        yield schema, publish(model, Path(base) / _NAME, version=1)


@contextlib.contextmanager
def _served(version: Path) -> Iterator[tuple[str, FeedbackClient]]:
    with (
        embedded_server(version.parent, _NAME) as target,
        FeedbackClient(target, _NAME, timeout=_TIMEOUT) as client,
    ):
        yield target, client
