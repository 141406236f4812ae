import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from serving import wire
from serving.channel import Channel
from serving.errors import ServingError

REQUEST = wire.GetModelStatusRequest()


class ScriptedServer:
    """Fails with one status after the other, then answers."""

    def __init__(self):
        self.script: list[tuple[grpc.StatusCode, str]] = []
        self.calls = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        method = wire.GET_MODEL_STATUS
        handler = grpc.unary_unary_rpc_method_handler(
            self._answer, method.request.FromString, method.response.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(method.service, {method.name: handler})]
        )
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, request, context):
        self.calls += 1
        if self.script:
            context.abort(*self.script.pop(0))
        return wire.GetModelStatusResponse()

    def stop(self):
        self._server.stop(None)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def channel(scripted: ScriptedServer) -> Iterator[Channel]:
    channel = Channel(scripted.target)
    yield channel
    channel.close()


def call(channel: Channel, seconds: float = 5.0, **kwargs):
    return channel.call(wire.GET_MODEL_STATUS, REQUEST, time.monotonic() + seconds, **kwargs)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_passing_troubles_are_tried_again(scripted, channel, code):
    scripted.script = [(grpc.StatusCode[code], "later")] * 2
    assert call(channel) == wire.GetModelStatusResponse()
    assert scripted.calls == 3


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL", "UNKNOWN"]
)
def test_lasting_troubles_are_raised_at_once(scripted, channel, code):
    scripted.script = [(grpc.StatusCode[code], "no such thing")]
    with pytest.raises(ServingError) as error:
        call(channel)
    assert error.value.code == grpc.StatusCode[code]
    assert error.value.details == "no such thing"
    assert scripted.calls == 1


def test_a_message_over_the_limit_is_not_sent_again(scripted, channel):
    details = "Received message larger than max (9 vs. 8)"
    scripted.script = [(grpc.StatusCode.RESOURCE_EXHAUSTED, details)]
    with pytest.raises(ServingError, match="max_candidates_per_call"):
        call(channel)
    assert scripted.calls == 1


def test_pauses_grow_and_end_with_the_deadline(scripted, channel):
    scripted.script = [(grpc.StatusCode.UNAVAILABLE, "down")] * 1000
    start = time.monotonic()
    with pytest.raises(ServingError) as error:
        call(channel, seconds=0.6)
    assert error.value.code == grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - start < 0.7
    # Pauses of at least 25, 50, 100, 200 and 400 ms leave room for no more than five calls.
    assert 2 <= scripted.calls <= 5


def test_retries_can_be_turned_off(scripted, channel):
    scripted.script = [(grpc.StatusCode.UNAVAILABLE, "down")]
    with pytest.raises(ServingError):
        call(channel, retry=False)
    assert scripted.calls == 1


def test_nobody_at_the_address_is_unavailable_and_says_where():
    channel = Channel("127.0.0.1:1")
    with pytest.raises(ServingError, match=r"UNAVAILABLE: .*server runs at 127\.0\.0\.1:1"):
        call(channel, seconds=0.2)
    channel.close()
