"""What is done to a server in a soak, and what was seen."""

from __future__ import annotations

import dataclasses
import statistics
import threading
from typing import Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done at a time.

    Attributes:
        seconds: how long.
        warmup: share of them after which memory is first measured.
        callers: threads that send good requests.
        connections: opened at once, one good request over each.
        swap_seconds: pause between two changes of the versions.
        connect_seconds: pause before connections are opened again.
        least_swaps: a busy machine goes on until there were so many.
    """

    seconds: float
    warmup: float = 0.3
    callers: int = 3
    connections: int = 1000
    swap_seconds: float = 4.0
    connect_seconds: float = 5.0
    least_swaps: int = 2


@dataclasses.dataclass
class Soaked:
    """What happened; the counts of a thread are its own.

    Attributes:
        counts: of what was done, by name.
        faults: what must not happen, in words.
        rss: memory of the server in MiB, sampled once a second.
    """

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)
    rss: list[float] = dataclasses.field(default_factory=list)
    _lock: Any = dataclasses.field(default_factory=threading.Lock)

    def add(self, name: str, number: int = 1) -> None:
        """Counts."""
        with self._lock:
            self.counts[name] = self.counts.get(name, 0) + number

    def fault(self, kind: str, words: str) -> None:
        """Counts, and notes, what must not happen."""
        self.add(kind)
        with self._lock:
            if len(self.faults) < 20:
                self.faults.append(f"{kind}: {words}")

    def after_warmup(self, warmup: float) -> float:
        """Returns the usual memory in the first third of the time after the warm-up."""
        after = self._after(warmup)
        return statistics.median(after[: max(1, len(after) // 3)])

    def at_the_end(self, warmup: float) -> float:
        """Returns the usual memory in the last third of that time."""
        after = self._after(warmup)
        return statistics.median(after[-max(1, len(after) // 3) :])

    def growth(self, warmup: float) -> float:
        """Returns how memory has grown between the two, as a share.

        While versions are swapped two are in memory, for some seconds: medians leave that out.
        """
        return self.at_the_end(warmup) / self.after_warmup(warmup) - 1

    def by_tenths(self) -> list[float]:
        """Returns the most memory in every tenth of the time."""
        tenth = -(-len(self.rss) // 10)
        return [max(self.rss[i : i + tenth]) for i in range(0, len(self.rss), tenth)]

    def _after(self, warmup: float) -> list[float]:
        return self.rss[int(len(self.rss) * warmup) :]
