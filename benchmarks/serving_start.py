"""How long a client takes from its first import to the first byte of a request."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from benchmarks.measure import Report
from serving import wire

_ROOT = Path(__file__).parents[1]
# Both print the moment before their first import: Linux's monotonic clock is that of all processes.
_OURS = """
import time; print(time.monotonic(), flush=True)
import sys
from serving.client import FeedbackClient, RetryPolicy, ServingError
try:
    FeedbackClient(sys.argv[1], "dfn", retry=RetryPolicy.never()).metadata()
except ServingError:
    pass
"""
_THEIRS = """
import time; print(time.monotonic(), flush=True)
import sys, grpc
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc
request = get_model_metadata_pb2.GetModelMetadataRequest()
request.model_spec.name = "dfn"
try:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(sys.argv[1]))
    stub.GetModelMetadata(request, timeout=60)
except grpc.RpcError:
    pass
"""


def start_report(repeats: int = 5, compared: bool = True) -> Report:
    """Starts clients in processes of their own, and waits for their first request.

    Args:
        repeats: clients of each kind.
        compared: whether clients of `tensorflow_serving.apis` are started too.
    """
    report = Report(
        "From a client's first import to its first request at the server",
        ["client", "s", "of serving.client"],
        notes=[f"Median of {repeats} processes; connecting is part of it."],
    )
    kinds = {"serving.client": _OURS}
    if compared:
        kinds["tensorflow_serving.apis"] = _THEIRS
    # In turn, and once before: the first finds no file of its own in memory.
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with _Arrivals() as arrivals:
        for index in range(repeats + 1):
            for name, code in kinds.items():
                value = arrivals.seconds(code)
                if index:
                    seconds[name].append(value)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        report.rows.append([name, value, value / middle["serving.client"]])
    return report


class _Arrivals:
    """A server that notes when a call arrives, and answers none."""

    def __enter__(self) -> _Arrivals:
        self._moment: float | None = None
        self._seen = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        method = wire.GET_MODEL_METADATA
        handler = grpc.unary_unary_rpc_method_handler(self._note)
        handlers = grpc.method_handlers_generic_handler(method.service, {method.name: handler})
        self._server.add_generic_rpc_handlers([handlers])
        self._target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop(None).wait()

    def _note(self, request: bytes, context: Any) -> None:
        self._moment = time.monotonic()
        self._seen.set()
        context.abort(grpc.StatusCode.NOT_FOUND, "No model is served here.")

    def seconds(self, code: str) -> float:
        """Runs a client, and returns the seconds from its first line to its first call."""
        self._seen.clear()
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", code, self._target],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "PYTHONPATH": path},
        )
        if done.returncode or not self._seen.wait(10) or self._moment is None:
            raise RuntimeError(f"The client did not call the server: {done.stderr[-2000:]}")
        return self._moment - float(done.stdout.split()[0])
