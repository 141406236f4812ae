"""What a server counts, as Prometheus text under TF Serving's own names.

The text is written here, not by prometheus-client: that one appends `_total` to every counter, and
dashboards made for TF Serving would not find theirs.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# TF Serving's own: 33 buckets from 10 microseconds to about 20 minutes.
_MICROSECONDS = tuple(10 * 1.8**power for power in range(33))


class Counter:
    """A sum for every combination of labels.

    Args:
        name: `:tensorflow:serving:...`.
        text: what it counts.
        labels: names of the labels.
    """

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str]):
        self.name, self.text, self._labels = name, text, tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, value: float = 1) -> None:
        """Adds to the sum of these labels."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + value

    def value(self, *labels: str) -> float:
        """Returns the sum of these labels."""
        with self._lock:
            return self._values.get(labels, 0)

    def lines(self) -> list[str]:
        """Returns the samples as text."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"{self.name}{_braces(self._labels, key)} {value:.15g}" for key, value in values]


class Histogram:
    """A distribution of microseconds for every combination of labels; arguments as above."""

    kind = "histogram"

    def __init__(self, name: str, text: str, labels: Sequence[str]):
        self.name, self.text, self._labels = name, text, tuple(labels)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, seconds: float) -> None:
        """Adds one duration."""
        value = seconds * 1e6
        bucket = bisect.bisect_left(_MICROSECONDS, value)
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * (len(_MICROSECONDS) + 1))
            counts[bucket] += 1
            self._sums[labels] = self._sums.get(labels, 0) + value

    def count(self, *labels: str) -> int:
        """Returns how many durations were added under these labels."""
        with self._lock:
            return sum(self._counts.get(labels, ()))

    def lines(self) -> list[str]:
        """Returns the samples as text."""
        with self._lock:
            values = [(key, list(c), self._sums[key]) for key, c in sorted(self._counts.items())]
        limits = [f"{limit:.6g}" for limit in _MICROSECONDS] + ["+Inf"]
        lines = []
        for key, counts, total in values:
            seen = 0
            for limit, count in zip(limits, counts, strict=True):
                seen += count
                braces = _braces((*self._labels, "le"), (*key, limit))
                lines.append(f"{self.name}_bucket{braces} {seen}")
            braces = _braces(self._labels, key)
            lines += [f"{self.name}_sum{braces} {total:.15g}", f"{self.name}_count{braces} {seen}"]
        return lines


class Metrics:
    """All that one server counts.

    Attributes:
        requests: answered calls, by model and status.
        latency: their time, by model, call and entry point.
        runtime: time of the runs of a graph, by model, call and runtime.
        loads: loaded and failed versions, by model and status.
        warmups: time of warming up, by model and status.
        logged: requests of the request log, by model and status: OK, or RESOURCE_EXHAUSTED for
            what was dropped.
    """

    def __init__(self) -> None:
        prefix = ":tensorflow:serving:"
        self.requests = Counter(
            f"{prefix}request_count", "Requests by model and status.", ("model_name", "status")
        )
        self.latency = Histogram(
            f"{prefix}request_latency",
            "Microseconds of whole requests.",
            ("model_name", "API", "entrypoint"),
        )
        self.runtime = Histogram(
            f"{prefix}runtime_latency",
            "Microseconds of the runs of a graph; large requests take several.",
            ("model_name", "API", "runtime"),
        )
        self.loads = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "Versions loaded, or not.",
            ("model_path", "status"),
        )
        self.warmups = Histogram(
            f"{prefix}model_warmup_latency",
            "Microseconds of warming up.",
            ("model_path", "status"),
        )
        self.logged = Counter(
            f"{prefix}request_log_count",
            "Requests written to the request log, or dropped.",
            ("model_name", "status_code"),
        )

    def text(self) -> str:
        """Returns everything in Prometheus' text format."""
        lines = []
        for metric in vars(self).values():
            lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines()
        return "\n".join(lines) + "\n"


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
