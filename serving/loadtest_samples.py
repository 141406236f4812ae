"""What a load test measures of one call, and what many calls amount to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from serving.batching import Scores

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
NOT_ANSWERED = "NOT_ANSWERED"
"""Code of a call that had not ended, or not even begun, when the load was given up."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One call.

    Attributes:
        index: number of the payload.
        intended: when it was meant to be sent, in seconds since the load began.
        sent: when it was.
        done: when its answer, or error, was there.
        code: name of the gRPC code, or `NOT_ANSWERED`.
        version: version that answered, where one did.
        scores: the answer, where the load keeps answers.
    """

    index: int
    intended: float
    sent: float
    done: float
    code: str
    version: int | None = None
    scores: Scores | None = None

    @property
    def latency(self) -> float:
        """Seconds from the intended moment to the answer."""
        return self.done - self.intended


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest value that so many percent of all are not above; NaN of none.

    Example:
        >>> percentile([4.0, 1.0, 3.0, 2.0], 50)
        2.0
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    # Rounded first: 0.07 * 100 is above 7 in floating point, and would name the next value.
    rank = math.ceil(round(percent / 100 * len(ordered), 9))
    return ordered[max(rank, 1) - 1]


def summary(samples: Sequence[Sample], since: float = 0.0) -> dict[str, Any]:
    """Returns counts, throughput and latencies (ms) of a load from `since` on, ready for JSON.

    Latencies are those of all calls, failed ones included: a call that timed out took that long.
    """
    latencies = [1e3 * sample.latency for sample in samples]
    codes: dict[str, int] = {}
    for sample in samples:
        codes[sample.code] = codes.get(sample.code, 0) + 1
    seconds = max((sample.done for sample in samples), default=since) - since
    good = codes.get("OK", 0)
    ms: dict[str, float | None] = {f"p{p:g}": percentile(latencies, p) for p in PERCENTILES}
    ms["max"] = max(latencies, default=math.nan)
    return {
        "calls": len(samples),
        "failed": len(samples) - good,
        "codes": dict(sorted(codes.items())),
        "seconds": round(seconds, 3),
        "throughput": round(good / seconds, 3) if seconds > 0 else 0.0,
        "latency_ms": {k: None if math.isnan(v or 0) else round(v or 0, 3) for k, v in ms.items()},
        "versions": sorted({s.version for s in samples if s.version is not None}),
    }
