"""What idle cores give calls that come at random moments."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.measure import Report, in_turn
from serving.loadtest_load import Load, open_loop
from serving.loadtest_samples import summary

SHARES = (0.25, 0.5)
"""Rates, of what callers who wait for their answers get done."""
_PERCENTILES = ("p50", "p90")


def spread_report(rounds: int, seconds: float) -> Report:
    """Returns the report that takes `spread_lines`."""
    return Report(
        "Calls at random moments, by the cores that a run may use",
        ["candidates, histories", "calls a second", "cores", "p50 ms", "p90 ms", "p50", "p90"],
        notes=[
            f"Medians of {rounds} loads of {seconds:g} s in turn. The last two: times those of "
            "the first server, within a round."
        ],
    )


def spread_lines(
    label: str, loads: Mapping[str, Load], throughput: float, rounds: int
) -> list[list[Any]]:
    """Loads servers at random moments, in turn.

    Args:
        label: of the requests.
        loads: by server; the first is what others are compared with.
        throughput: calls a second that the rates are shares of.
        rounds: loads of each server and rate.
    """
    lines = []
    for rate in (share * throughput for share in SHARES):
        found = in_turn(
            {name: partial(_latency, load, rate) for name, load in loads.items()}, rounds
        )
        first = next(iter(found.values()))
        for name, values in found.items():
            ms = [statistics.median(value[key] for value in values) for key in _PERCENTILES]
            ratios = [
                statistics.median(a[key] / b[key] for a, b in zip(values, first, strict=True))
                for key in _PERCENTILES
            ]
            lines.append([label, rate, name, *ms, *ratios])
    return lines


def _latency(load: Load, rate: float) -> dict[str, float]:
    latency: dict[str, float] = summary(open_loop(load, rate))["latency_ms"]
    return latency
