"""The end of a server: accepted calls finish, new ones are told to go elsewhere.

gRPC's own graceful stop answers CANCELLED, which no client repeats, to calls that arrive on an open
connection before its caller learns of the stop. So calls are refused here first, with UNAVAILABLE,
and gRPC is stopped when none is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

_HEALTH = "/grpc.health.v1."  # says NOT_SERVING meanwhile
_QUIET_SECONDS = 0.05
_LONGEST_LINGER = 1.0


class CountingPool(futures.ThreadPoolExecutor):
    """A thread pool that knows when it has nothing left to do."""

    def __init__(self, threads: int):
        super().__init__(threads)
        self._changed = threading.Condition()
        self._left = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Adds a task."""
        with self._changed:
            self._left += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except RuntimeError:
            self._done()
            raise
        future.add_done_callback(lambda _: self._done())
        return future

    def wait(self, seconds: float) -> bool:
        """Waits until every task has ended, and returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._left, seconds)

    def _done(self) -> None:
        with self._changed:
            self._left -= 1
            self._changed.notify_all()


class Door(grpc.ServerInterceptor):
    """Lets calls in until it is closed; after that they are UNAVAILABLE."""

    def __init__(self) -> None:
        self._closed = False
        self._refused = 0.0
        self._refusal = grpc.unary_unary_rpc_method_handler(self._refuse)

    def close(self) -> None:
        """Lets no call in any more; those that are in stay."""
        self._closed = True

    def linger(self) -> None:
        """Waits until nobody has knocked for a moment, but not for long."""
        end = time.monotonic() + _LONGEST_LINGER
        while (now := time.monotonic()) < min(end, self._refused + _QUIET_SECONDS):
            time.sleep(min(end, self._refused + _QUIET_SECONDS) - now)

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Chooses who answers a call."""
        if self._closed and not details.method.startswith(_HEALTH):
            self._refused = time.monotonic()
            return self._refusal
        return continuation(details)

    def _refuse(self, request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "The server is stopping.")
