"""Several callers at a time, and a new version under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Report
from serving.loadtest_load import Load
from serving.loadtest_swap import rehearse


def throughputs(
    calls: Mapping[str, Callable[[], Any]], callers: int, seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Returns the calls a second of each way, in rounds that take turns.

    Args:
        calls: what callers do, by way.
        callers: threads that call, each again when its last call has returned.
        seconds: of one round of one way.
        rounds: of each way.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        for name in order:
            found[name].append(_rate(calls[name], callers, seconds))
        order.reverse()
    return found


def _rate(call: Callable[[], Any], callers: int, seconds: float) -> float:
    counts, failures = [0] * callers, list[Exception]()
    start = time.perf_counter()

    def work(index: int) -> None:
        try:
            while time.perf_counter() - start < seconds:
                call()
                counts[index] += 1
        except Exception as error:  # raised again below: a thread's own is only printed
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - start)


def swap_report(
    target: str, model: str, requests: Sequence[Any], version: Path, rate: float, seconds: float
) -> Report:
    """Publishes a copy of a version a third into a load, and reports latencies around it.

    Args:
        target: server that watches the folder of the version.
        model: its name.
        requests: what to send.
        version: folder of the version.
        rate: calls a second, at random moments.
        seconds: of the load.
    """
    found = rehearse(Load(target, model, requests, seconds), rate, version)
    swap = found["swap"]
    report = Report(
        f"A new version under {rate:.0f} requests a second",
        ["calls", "number", "p50 ms", "p99 ms", "of p99 before"],
        notes=[
            f"Published {swap['published_at']:.1f} s into the load, answering from "
            f"{swap['served_at']:.1f} s on: during is between the two. "
            f"{found['failed']} calls failed, {found['wrong']} scores were wrong."
        ],
    )
    steady = found["before"]["latency_ms"]["p99"]
    for part in ("before", "during", "after"):
        ms = found[part]["latency_ms"]
        ratio = ms["p99"] / steady if ms["p99"] and steady else None
        report.rows.append([part, found[part]["calls"], ms["p50"], ms["p99"], ratio])
    return report
