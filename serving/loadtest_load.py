"""Load on a server: open loop (calls come when they come) and closed loop (callers wait).

In the open loop a call's latency counts from the moment it was *meant* to be sent. A server that
stalls for a second is charged for every call that would have come in that second, whether or not
a thread was free to send it: leaving those out ("coordinated omission") makes a bad second look
like one bad call.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from serving.batching import Scores
from serving.client import CallRecord, FeedbackClient, RetryPolicy, ServingError
from serving.loadtest_samples import NOT_ANSWERED, Sample

MOST_SECONDS = 3600.0
MOST_CALLS = 1_000_000
_DRAIN_SECONDS = 30.0

Payload = dict[str, Any] | bytes
"""A request as people write it, or a serialised record."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What to send, and how long.

    Attributes:
        target: `host:port`.
        model: name of the model.
        payloads: requests, sent in turn.
        seconds: after which no more calls begin.
        max_calls: after which no more calls begin.
        timeout: seconds a call may take.
        options: further options of every `FeedbackClient`, such as `label` or `tls`.
        keep_scores: keeps every answer.
        seed: of the arrivals.
    """

    target: str
    model: str
    payloads: Sequence[Payload]
    seconds: float = 10.0
    max_calls: int = 100_000
    timeout: float = 5.0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    keep_scores: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.payloads:
            raise ValueError("There are no requests to send.")
        if not 0 < self.seconds <= MOST_SECONDS or not 1 <= self.max_calls <= MOST_CALLS:
            raise ValueError(
                f"A load lasts up to {MOST_SECONDS:.0f} seconds and {MOST_CALLS:,} calls, got "
                f"{self.seconds} and {self.max_calls}."
            )
        if not 0 < self.timeout <= MOST_SECONDS:
            raise ValueError(
                f"A call of a load may take up to {MOST_SECONDS:.0f} seconds, got {self.timeout}."
            )


def poisson_arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yields the moments, in seconds from 0, of independent calls.

    Args:
        rate: mean calls a second.
        seconds: where they end.
        seed: of the randomness; equal seeds give equal moments.
    """
    draw = random.Random(seed)
    moment = draw.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += draw.expovariate(rate)


def open_loop(
    load: Load,
    rate: float,
    threads: int = 64,
    started: Callable[[float], object] = lambda moment: None,
) -> list[Sample]:
    """Sends calls at Poisson moments, whether or not earlier ones were answered.

    Args:
        load: what to send.
        rate: mean calls a second.
        threads: calls at a time; when all are busy a call waits, and its wait counts.
        started: told, in seconds of `time.monotonic()`, when the load begins.

    Returns:
        A sample a call, in the order they were meant to be sent.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive, got {rate}.")
    todo: queue.SimpleQueue[tuple[int, float] | None] = queue.SimpleQueue()

    def next_call(_: float) -> tuple[int, float] | None:
        return todo.get()

    with _Callers(load, threads, next_call) as callers:
        started(callers.start)
        for number, moment in enumerate(poisson_arrivals(rate, load.seconds, load.seed)):
            if number >= load.max_calls or callers.broken:
                break
            time.sleep(max(0.0, callers.start + moment - time.monotonic()))
            callers.expect(number, moment)
            todo.put((number, moment))
        for _ in range(threads):
            todo.put(None)
    return callers.samples()


def closed_loop(load: Load, concurrency: int) -> list[Sample]:
    """Lets callers send one call after the other, each when its last one was answered.

    Its throughput is the server's; its latencies leave out what callers would have suffered who
    do not wait: take `open_loop` for those.

    Args:
        load: what to send.
        concurrency: callers.

    Returns:
        A sample a call, in the order they were sent.
    """
    numbers = iter(range(load.max_calls))
    lock = threading.Lock()

    def next_call(moment: float) -> tuple[int, float] | None:
        with lock:
            number = next(numbers, None)
        return None if number is None or moment >= load.seconds else (number, moment)

    with _Callers(load, concurrency, next_call) as callers:
        pass
    return callers.samples()


class _Callers:
    """Threads that make calls until `next_call`, told the seconds so far, returns None."""

    def __init__(
        self, load: Load, threads: int, next_call: Callable[[float], tuple[int, float] | None]
    ):
        if not 1 <= threads <= 1024:
            raise ValueError(f"From 1 to 1024 calls at a time can be made, got {threads}.")
        self._load = load
        self._next = next_call
        self._samples: list[Sample] = []
        self._open: dict[int, float] = {}  # when calls that have not ended were meant to be sent
        self._ending = threading.Lock()
        self._version = threading.local()
        self._client = FeedbackClient(
            load.target,
            load.model,
            timeout=load.timeout,
            log=self._heard,
            # A call that is tried again would hide that it failed.
            retry=RetryPolicy.never(),
            **load.options,
        )
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        self.broken: Exception | None = None
        self.start = 0.0
        self._freezes = False

    def __enter__(self) -> _Callers:
        try:
            # The schema is agreed on before the clock starts: it is asked for once in a client's
            # life.
            send(self._client, self._load.payloads[0], self._load.timeout + 5.0)
            # To look through all that is imported for garbage takes a fifth of a second, in which
            # no answer is read: the server would be charged for it.
            gc.collect()
            self._freezes = not gc.get_freeze_count()
            if self._freezes:
                gc.freeze()
            self.start = time.monotonic()
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.broken = RuntimeError("The load could not begin.")  # callers that run stop
            self._end()
            raise
        return self

    def expect(self, number: int, intended: float) -> None:
        """Counts a call from the moment it is meant to be sent: it may never be."""
        with self._ending:
            self._open[number] = intended

    def __exit__(self, kind: object, *exc_info: object) -> None:
        # No call begins after the last moment, and none outlives its timeout. Of a run that was
        # interrupted nobody waits for the rest.
        limit = self.start + self._load.seconds + self._load.timeout + _DRAIN_SECONDS
        for thread in self._threads if kind is None else ():
            thread.join(max(0.0, limit - time.monotonic()))
        with self._ending:
            # To leave out calls that a server was too slow for would hide just the worst ones.
            now, late = time.monotonic() - self.start, self._open
            self._open = {}
        self._samples += [
            Sample(number % len(self._load.payloads), intended, now, now, NOT_ANSWERED)
            for number, intended in late.items()
        ]
        self._end()

    def _end(self) -> None:
        if self._freezes:  # what others froze stays so
            gc.unfreeze()
        self._client.close()

    def samples(self) -> list[Sample]:
        """Returns what was measured, or raises what ended it."""
        if self.broken is not None:
            raise self.broken
        return sorted(self._samples, key=lambda sample: sample.intended)

    def _heard(self, record: CallRecord) -> None:
        self._version.value = record.version

    def _work(self) -> None:
        while self.broken is None:
            call = self._next(time.monotonic() - self.start)
            if call is None:
                return
            number, intended = call
            self.expect(number, intended)
            index = number % len(self._load.payloads)
            sent, scores, code = time.monotonic() - self.start, None, "OK"
            self._version.value = None
            try:
                scores = send(self._client, self._load.payloads[index])
            except ServingError as error:
                code = error.code.name
            except Exception as error:  # such as a request that does not fit: the run is void
                self.broken = error
                return
            done = time.monotonic() - self.start
            kept = scores if self._load.keep_scores else None
            version = self._version.value
            with self._ending:
                if self._open.pop(number, None) is not None:
                    self._samples.append(Sample(index, intended, sent, done, code, version, kept))


def send(client: FeedbackClient, payload: Payload, timeout: float | None = None) -> Scores:
    """Sends one payload and returns its scores."""
    if isinstance(payload, bytes):
        return client.rank_examples([payload], timeout=timeout)[0]
    return client.rank_many([payload], timeout=timeout)[0]
