"""Timing that survives a busy machine, and reports that print as tables."""

from __future__ import annotations

import dataclasses
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.table import Table

Result = TypeVar("Result")


@dataclasses.dataclass
class Report:
    """What a benchmark found.

    Attributes:
        title: what was measured, with its sizes.
        columns: headings.
        rows: one value a heading; numbers are printed with three significant digits.
        notes: what a reader needs to know to judge the numbers.
    """

    title: str
    columns: list[str]
    rows: list[list[Any]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def table(self) -> Table:
        """Lays the report out for a terminal."""
        table = Table(title=self.title, caption="\n".join(self.notes) or None)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*(readable(value) for value in row))
        return table


def readable(value: Any) -> str:
    """Writes a number with three significant digits, anything else as text."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def interleaved_seconds(
    variants: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Times variants in turn, so that whatever else the machine does hits all of them alike.

    The order is drawn anew every round: what runs finds the caches as the one before has left them,
    warm where that was itself. (Turned round instead, all but the middle one of three would run
    twice in a row.)

    Args:
        variants: what to time; each call must wait for its result.
        repeats: timed rounds.
        warmup: calls a variant before, not timed.

    Returns:
        Seconds of every round, by variant.
    """
    for call in variants.values():
        for _ in range(warmup):
            call()
    return in_turn({name: partial(_seconds, call) for name, call in variants.items()}, repeats)


def in_turn(variants: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Calls each variant once a round, in an order drawn anew, and returns what they gave."""
    found: dict[str, list[Result]] = {name: [] for name in variants}
    order, rng = list(variants), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            found[name].append(variants[name]())
    return found


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved_medians(
    variants: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 2
) -> dict[str, float]:
    """Returns the median seconds a call of `interleaved_seconds`, by variant."""
    seconds = interleaved_seconds(variants, repeats, warmup)
    return {name: statistics.median(values) for name, values in seconds.items()}


def paired_ratios(slower: Sequence[float], faster: Sequence[float]) -> tuple[float, float, float]:
    """Returns lower quartile, median and upper quartile of the ratios of single rounds."""
    low, middle, high = np.percentile(np.divide(slower, faster), [25, 50, 75])
    return float(low), float(middle), float(high)


def peak_megabytes() -> float:
    """Returns the peak resident memory of this process.

    Linux's own counter is preferred: `getrusage` of a new process starts at its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
