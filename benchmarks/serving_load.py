"""Several callers at a time, and a new version under load."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Report, in_turn
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
    rates = {name: partial(_rate, call, callers, seconds) for name, call in calls.items()}
    return in_turn(rates, rounds)


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
    target: str,
    model: str,
    requests: Sequence[Any],
    version: Path,
    rate: float,
    seconds: float,
    loads: int = 1,
) -> Report:
    """Publishes a copy of a version a third into each of some loads; reports latencies around it.

    Args:
        target: server that watches the folder of the version.
        model: its name.
        requests: what to send.
        version: folder of the version.
        rate: calls a second, at random moments.
        seconds: of one load.
        loads: how many: a p99 of a few hundred calls varies by a quarter on its own.
    """
    load = Load(target, model, requests, seconds)
    found = [rehearse(load, rate, version) for _ in range(loads)]
    taken = [one["swap"]["served_at"] - one["swap"]["published_at"] for one in found]
    report = Report(
        f"A new version under {rate:.0f} requests a second",
        ["calls", "number", "p50 ms", "p99 ms", "of p99 before", "lowest", "highest"],
        notes=[
            f"Medians of {loads} loads of {seconds:g} s, each with a swap; ratios are taken within "
            f"a load. During is from publishing until the new version answered, "
            f"{statistics.median(taken):.1f} s. {sum(one['failed'] for one in found)} calls "
            f"failed, {sum(one['wrong'] for one in found)} scores were wrong."
        ],
    )
    for part in ("before", "during", "after"):
        ms = [one[part]["latency_ms"] for one in found]
        ratios = [
            values["p99"] / one["before"]["latency_ms"]["p99"]
            for one, values in zip(found, ms, strict=True)
        ]
        report.rows.append(
            [
                part,
                int(statistics.median(one[part]["calls"] for one in found)),
                statistics.median(values["p50"] for values in ms),
                statistics.median(values["p99"] for values in ms),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
            ]
        )
    return report
