"""Serving: what gRPC adds to the bare model call, and what a request saves over rows.

The bare call is a callable of TensorFlow's C++ session, fed numpy arrays in this process; the
server is the embedded one, in a process of its own on the same cores. gRPC includes encoding the
request from Python lists, and decoding the scores. The bare call runs on one core; so does a second
server, to tell what the other cores give from what gRPC takes. A third has nothing to compute: what
it takes no model can be without.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.measure import Report, interleaved_seconds
from benchmarks.serving_bare import BareModel
from benchmarks.serving_floor import publish_blank
from benchmarks.serving_load import swap_report, throughputs
from benchmarks.serving_spread import spread_lines, spread_report
from benchmarks.serving_start import start_report
from benchmarks.workload import synthetic_request, synthetic_schema
from serving import wire
from serving.channel import Channel
from serving.chunks import LEAST_PART
from serving.client import FeedbackClient
from serving.cores import usable_cores
from serving.loadtest_load import Load
from serving.loadtest_tune import embedded_server
from serving.tensors import to_proto
from tfrec_feedback.export import publish
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Schema

_FOUR = ("click", "unclick", "like", "dislike")
SIZES = (
    (100, 30, ("click", "unclick", "dislike")),
    (200, 50, _FOUR),
    (500, 50, _FOUR),
    (1000, 50, _FOUR),
)
"""Candidates, events of each history, and the histories, of the requests that are timed."""
Size = tuple[int, int, Sequence[str]]
Result = TypeVar("Result")
_NAME = "dfn"
_FLOOR = "gRPC, nothing to compute"
_RANK, _ROWS = "serving_default", "predict_rows"
_TIMEOUT = 60.0


def run(
    sizes: Sequence[Size] = SIZES,
    embedding_dim: int = 64,
    repeats: int = 200,
    seconds: float = 2.0,
    rounds: int = 5,
    swap_seconds: float = 30.0,
    swaps: int = 5,
    spread_seconds: float = 5.0,
) -> list[Report]:
    """Publishes DFN with random weights and asks it for scores in every way.

    Args:
        sizes: as `SIZES`.
        embedding_dim: d.
        repeats: timed requests a way.
        seconds: of a round of the throughput.
        rounds: of the throughput.
        swap_seconds: of a load that a version is swapped under, at the first size; 0: none.
        swaps: such loads.
        spread_seconds: of a load at random moments; 0: none.
    """
    latency = Report(
        f"DFN, d = {embedding_dim}: one request at a time",
        ["candidates, histories", "way", "p50 ms", "of bare call", "request bytes"],
        notes=["One row a candidate: the user's part repeated in every row."],
    )
    throughput = Report(
        f"DFN, d = {embedding_dim}: requests a second, callers that wait for their answers",
        ["candidates, histories", "callers", "bare call", "gRPC", "of bare call", _FLOOR],
        notes=[
            f"Median of {rounds} rounds in turn of {seconds:g} s. Callers, client and server share",
            f"{usable_cores()} cores.",
        ],
    )
    spread = spread_report(rounds, spread_seconds)
    swap: list[Report] = []
    for index, size in enumerate(sizes):
        with tempfile.TemporaryDirectory() as base:
            version = alone(published, Path(base) / _NAME, *size[1:], embedding_dim)
            blank = alone(publish_blank, synthetic_schema(*size[1:]), Path(base) / "blank")
            found = alone(measured, version, blank, size, repeats, seconds, rounds)
            latency.rows += found[0]
            throughput.rows += found[1]
            if spread_seconds and size[0] >= 2 * LEAST_PART:
                rate = throughput.rows[-1][3]
                spread.rows += alone(spreading, version, size, rate, spread_seconds, rounds)
            if index == 0 and swap_seconds:
                rate = 0.2 * throughput.rows[-1][3]
                swap = [alone(swapped, version, size, rate, swap_seconds, swaps)]
    return [latency, throughput, *([spread] if spread.rows else []), *swap, start_report()]


def alone(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function of this module in a new process.

    The first session of a process decides how many threads all its sessions have: what trained or
    exported a model before would make the bare call another one than the server's.
    """
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=spawn) as processes:
        return processes.submit(function, *arguments).result()


def published(base: Path, length: int, histories: Sequence[str], embedding_dim: int) -> Path:
    """Publishes a model of random weights; returns its version's folder."""
    schema = synthetic_schema(length, histories)
    return publish(build_model("dfn", schema, embedding_dim=embedding_dim), base, version=1)


def measured(
    version: Path, blank: Path, size: Size, repeats: int, seconds: float, rounds: int
) -> tuple[list[list[Any]], list[list[Any]]]:
    """Returns the rows of latency and of throughput of a version.

    Args:
        version: its folder.
        blank: that of a model of the same signature, with nothing to compute.
        size: of the requests.
        repeats: timed requests a way.
        seconds: of a round of the throughput.
        rounds: of the throughput.
    """
    candidates, length, histories = size
    label = _label(size)
    schema, request = synthetic_schema(length, histories), random_request(*size)
    lines = []
    with (
        served(version) as (target, client),
        served(version, "--spread", "1") as (_, narrow),
        served(blank) as (_, floor),
    ):
        clients = {"gRPC": client, "gRPC, on one core": narrow, _FLOOR: floor}
        ways = ways_of(BareModel(version), clients, target, schema, request)
        latencies = _latencies(label, ways, repeats, *_sizes(schema, request))
        one = {name: ways[name] for name in ("bare call", "gRPC", _FLOOR)}
        for callers in (1, 4):
            found = throughputs(one, callers, seconds, rounds)
            ratio = statistics.median(np.divide(found["gRPC"], found["bare call"]))
            bare, grpc, floor_rate = (float(statistics.median(some)) for some in found.values())
            lines.append([label, callers, bare, grpc, float(ratio), floor_rate])
    return latencies, lines


def spreading(
    version: Path, size: Size, throughput: float, seconds: float, rounds: int
) -> list[list[Any]]:
    """Returns what idle cores give a request of many candidates."""
    with served(version, "--spread", "1") as (one, _), served(version) as (every, _):
        targets = {"one": one, "idle ones too": every}
        request = [random_request(*size)]
        loads = {name: Load(target, _NAME, request, seconds) for name, target in targets.items()}
        return spread_lines(_label(size), loads, throughput, rounds)


def swapped(version: Path, size: Size, rate: float, seconds: float, swaps: int) -> Report:
    """Returns what a new version costs those who are being served."""
    with served(version) as (target, _):
        return swap_report(target, _NAME, [random_request(*size)], version, rate, seconds, swaps)


def _label(size: Size) -> str:
    return f"{size[0]}, {len(size[2])} x {size[1]}"


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


def ways_of(
    bare: BareModel,
    clients: Mapping[str, FeedbackClient],
    target: str,
    schema: Schema,
    request: dict[str, Any],
) -> dict[str, Callable[[], Any]]:
    """Returns the ways to the scores of one request.

    Args:
        bare: the model without a server.
        clients: of servers, by way.
        target: server that is asked for rows.
        schema: of the model.
        request: one request.
    """
    batch = encode_requests(schema, [request])
    rows = rows_of(schema, batch)
    channel = Channel(target)

    def rows_over_grpc() -> Any:
        # Encoded anew every time, as the request is.
        message = predict_message(rows_of(schema, encode_requests(schema, [request])), _ROWS)
        return channel.call(wire.PREDICT, message, time.monotonic() + _TIMEOUT)

    return {
        "bare call": bare.call(_RANK, batch),
        **{way: partial(client.rank_many, [request]) for way, client in clients.items()},
        "bare call, one row a candidate": bare.call(_ROWS, rows),
        "gRPC, one row a candidate": rows_over_grpc,
    }


def _latencies(
    label: str, ways: Mapping[str, Callable[[], Any]], repeats: int, size: int, rows_size: int
) -> list[list[Any]]:
    # Rows take many times longer, and would leave the caches to what follows them.
    seconds: dict[str, list[float]] = {}
    for rows, rounds in ((False, repeats), (True, max(1, repeats // 4))):
        some = {way: call for way, call in ways.items() if ("one row" in way) == rows}
        seconds |= interleaved_seconds(some, rounds, warmup=10)
    bare = statistics.median(seconds["bare call"])
    lines = []
    for way, values in seconds.items():
        middle = statistics.median(values)
        length = rows_size if "one row" in way else size
        lines.append([label, way, 1e3 * middle, middle / bare, length if "gRPC" in way else "-"])
    return lines


def _sizes(schema: Schema, request: dict[str, Any]) -> tuple[int, int]:
    """Returns the bytes of a request, and of its rows."""
    batch = encode_requests(schema, [request])
    messages = predict_message(batch, _RANK), predict_message(rows_of(schema, batch), _ROWS)
    return messages[0].ByteSize(), messages[1].ByteSize()


@contextlib.contextmanager
def served(version: Path, *flags: str) -> Iterator[tuple[str, FeedbackClient]]:
    """Runs the embedded server in a process of its own; yields its target, and a client."""
    with (
        embedded_server(version.parent, _NAME, flags) as target,
        FeedbackClient(target, _NAME, timeout=_TIMEOUT) as client,
    ):
        yield target, client
