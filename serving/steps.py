"""Runs the steps of loading a version beside calls, so that these hardly notice.

A step must be C++ that lets go of Python's lock: a thread that holds it while it waits for a core
would hold up every call. What needs Python for long runs on the calling thread, with pauses.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from concurrent import futures
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")
_PATIENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.01


class Stopped(RuntimeError):
    """Nobody needs any more what is being loaded."""


class Steps:
    """Runs steps on the calling thread."""

    def run(self, step: Callable[[], Result]) -> Result:
        """Runs a step; returns what it returns and raises what it raises."""
        return step()

    def pause(self) -> None:
        """Lets callers have Python's lock, after what has held it for milliseconds."""


class QuietSteps(Steps):
    """Runs steps on a thread that gives its core to any other that wants it (Linux: `SCHED_IDLE`).

    Where no core is ever idle such a thread would hardly get on. Steps that have waited long enough
    are followed by steps on the calling thread: a server that is too busy gets its new version
    late, not never.

    Args:
        stopped: asked before every step and pause, which raise `Stopped` once it says so.
        patience: seconds that all steps together may wait for a core.
    """

    def __init__(
        self,
        stopped: Callable[[], bool] = lambda: False,
        patience: float = _PATIENCE_SECONDS,
    ):
        self._stopped = stopped
        self._patience = patience
        self._thread = futures.ThreadPoolExecutor(1, "steps", _give_way)

    def __enter__(self) -> QuietSteps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()

    def run(self, step: Callable[[], Result]) -> Result:
        """Runs a step; returns what it returns and raises what it raises."""
        self._check()
        if self._patience <= 0:
            return step()
        start = time.monotonic()
        result, busy = self._thread.submit(_timed, step).result()
        self._patience -= time.monotonic() - start - busy
        return result

    def pause(self) -> None:
        """Lets callers have Python's lock, after what has held it for milliseconds."""
        self._check()
        time.sleep(_PAUSE_SECONDS)

    def _check(self) -> None:
        if self._stopped():
            raise Stopped("The server is about to stop.")


def _timed(step: Callable[[], Result]) -> tuple[Result, float]:
    """Returns what a step returns, and the seconds that its thread had a core."""
    start = time.thread_time()
    return step(), time.thread_time() - start


def _give_way() -> None:
    """Lets every other thread go first, where threads have a priority of their own."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
