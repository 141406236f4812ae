"""A gRPC channel that tries again where that can help, and never past the deadline."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import grpc

from serving.client_calls import MAX_MESSAGE_BYTES, Attempts, Connection
from serving.policy import Cancellation
from serving.wire import Method

_CLOSED = "The client is closed; make another."
_CANCELLED = "The caller cancelled the call."


class Channel:
    """A connection to one server, used by all calls. Safe to use from several threads.

    Args:
        connection: how it is reached; a text is the target of a plain one.
    """

    def __init__(self, connection: Connection | str):
        self._connection = Connection(connection) if isinstance(connection, str) else connection
        self._channel = self._connection.open(grpc)
        self._stubs: dict[str, Any] = {}
        self._closed = False

    def call(
        self,
        method: Method,
        request: Any,
        deadline: float,
        retry: bool = True,
        cancellation: Cancellation | None = None,
    ) -> Any:
        """Sends one message and returns the answer.

        What the connection's policy names is tried again, with pauses that grow and vary at
        random, until the deadline.

        Args:
            method: what to call.
            request: its message.
            deadline: in seconds of `time.monotonic()`.
            retry: False to take the first answer.
            cancellation: ends the call, and the pauses between its tries, from another thread.

        Returns:
            The answer's message.

        Raises:
            ServingError: with the status code of the last try; CANCELLED after `cancellation`, or
                when the channel is closed.
        """
        attempts = Attempts(self._connection, method, request, deadline, retry)
        while True:
            seconds = attempts.begin()
            if self._closed:
                raise attempts.cancelled(_CLOSED)
            try:
                return attempts.succeeded(self._send(method, request, seconds, cancellation))
            except grpc.RpcError as error:
                if self._closed:
                    raise attempts.cancelled(_CLOSED) from error
                pause = attempts.pause_after(error)
            except grpc.FutureCancelledError as error:
                raise attempts.cancelled(_CANCELLED) from error
            except ValueError as error:  # closed by another thread since the check above
                if not self._closed:
                    raise
                raise attempts.cancelled(_CLOSED) from error
            if cancellation is None:
                time.sleep(pause)
            else:
                cancellation.wait(pause)

    def _send(
        self, method: Method, request: Any, seconds: float, cancellation: Cancellation | None
    ) -> Any:
        stub = self._stub(method)
        if cancellation is None:
            return stub(request, timeout=seconds)
        future = stub.future(request, timeout=seconds)
        with cancellation.watched_by(future.cancel):
            return future.result()

    def _stub(self, method: Method) -> Any:
        # Two threads may both make one; either serves, and no lock is held while calling.
        if method.path not in self._stubs:
            self._stubs[method.path] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._stubs[method.path]

    def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        self._closed = True
        with contextlib.suppress(ValueError):  # closed before
            self._channel.close()


__all__ = ["MAX_MESSAGE_BYTES", "Channel"]
