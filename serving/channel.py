"""A gRPC channel that tries again where that can help, and never past the deadline."""

from __future__ import annotations

import random
import time
from typing import Any

import grpc

from serving.errors import ServingError
from serving.wire import Method

MAX_MESSAGE_BYTES = 64 << 20
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The default of 4 MiB is less than the answer to a large batch.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The default waits a second before the first reconnect: longer than most deadlines.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Channel:
    """A connection to one server. Safe to use from several threads.

    Args:
        target: `host:port`, or any gRPC target.
    """

    def __init__(self, target: str):
        self.target = target
        self._channel = grpc.insecure_channel(target, _OPTIONS)

    def call(self, method: Method, request: Any, deadline: float, retry: bool = True) -> Any:
        """Sends one message and returns the answer.

        UNAVAILABLE and RESOURCE_EXHAUSTED are tried again with pauses that double (and vary at
        random, so that clients do not return all at once) until the deadline.

        Args:
            method: what to call.
            request: its message.
            deadline: in seconds of `time.monotonic()`.
            retry: False to take the first answer.

        Returns:
            The answer's message.

        Raises:
            ServingError: with the status code of the last try.
        """
        stub = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        pause = _FIRST_PAUSE
        while True:
            try:
                return stub(request, timeout=max(0.0, deadline - time.monotonic()))
            except grpc.RpcError as error:
                wait = pause * random.uniform(0.5, 1.0)
                if not retry or not _worth_retrying(error) or time.monotonic() + wait >= deadline:
                    raise ServingError.from_rpc(error, self.target) from error
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        self._channel.close()


def _worth_retrying(error: Any) -> bool:
    # A message over a size limit is RESOURCE_EXHAUSTED too, and will not shrink by waiting.
    return error.code() in _RETRIED and "larger than max" not in (error.details() or "")
