"""Calls over real gRPC, and waiting for what a server does in its own time."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving import wire
from serving.manager import Watching
from serving.server import Settings
from serving.steps import Steps
from serving.tensors import from_proto
from tests.serving.scaled_model import rank_request

QUICK = Settings(watching=Watching(poll_seconds=0.05, max_load_retries=0))
"""Looks for versions so often that no test waits for it."""
PATIENT = Settings(watching=Watching(poll_seconds=0))
"""Looks for versions only when told to."""


class Caller:
    """One connection to a server."""

    def __init__(self, channel: Any):
        self._channel = channel

    def __call__(self, method: wire.Method, request: Any, timeout: float = 30) -> Any:
        return self.stub(method)(request, timeout=timeout)

    def stub(self, method: wire.Method) -> Any:
        return self._channel.unary_unary(
            method.path, method.request.SerializeToString, method.response.FromString
        )

    def scores(self, items: Any, **spec: Any) -> list[float]:
        """Scores of one user's items."""
        response = self(wire.PREDICT, rank_request(items, **spec))
        return from_proto(response.outputs["score"])[0].tolist()

    def version(self, **spec: Any) -> int:
        """Number of the version that answers."""
        return self(wire.PREDICT, rank_request([1], **spec)).model_spec.version.value

    def states(self, model: str = "scaled") -> dict[int, tuple[int, int]]:
        """State and error code of every version."""
        request = wire.GetModelStatusRequest(model_spec={"name": model})
        found = self(wire.GET_MODEL_STATUS, request).model_version_status
        return {status.version: (status.state, status.status.error_code) for status in found}


@contextlib.contextmanager
def connected(server: Any) -> Iterator[Caller]:
    """Opens a connection of its own: those of one process to one server are shared otherwise."""
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Caller(channel)


def refusal(call: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[str, str]:
    """Status and details of a call that fails."""
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **more)
    return error.value.code().name, error.value.details()


def in_flight(server: Any) -> int:
    """How many calls are running on a server's models."""
    models = server.manager._models.values()
    return sum(entry.calls for model in models for entry in model._versions.values())


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Returns once it is true, and fails the test when that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.01)


class RecordingSteps(Steps):
    """Counts the steps and the pauses of loading a version."""

    def __init__(self) -> None:
        self.runs = self.pauses = 0

    def run(self, step: Callable[[], Any]) -> Any:
        self.runs += 1
        return step()

    def pause(self) -> None:
        self.pauses += 1


def log_lines(caplog: Any, words: str) -> int:
    """How many lines of the log hold these words."""
    return sum(words in record.getMessage() for record in caplog.records)


def files(directory: Path) -> list[Path]:
    """The files of a request log, oldest first."""
    return sorted(directory.glob("requests-*.tfrecord"))


class FakeModel:
    """What a manager needs of a loaded model."""

    def close(self) -> None:
        pass
