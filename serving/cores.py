"""The processor's cores: how many there are for this process, and which runs have them."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """Returns how many cores this process may use.

    Those that it is bound to, and no more than the CPU limit of its container, which
    `os.cpu_count` does not see: threads beyond it only wait until the limit lets them go on.

    Args:
        cgroups: where Linux tells the limit.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _limit(cgroups))))


def _limit(cgroups: Path) -> float:
    """Returns the CPU limit, in cores; infinity where there is none."""
    version_2 = [cgroups / "cpu.max"]  # "QUOTA PERIOD"; QUOTA may be "max"
    version_1 = [cgroups / "cpu" / name for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    for files in (version_2, version_1):
        try:
            quota, period = map(float, " ".join(file.read_text() for file in files).split())
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


class Cores:
    """Who has the cores, so that a run may spread over those that no other needs.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int):
        self._lock = threading.Lock()
        self._idle = count

    @contextlib.contextmanager
    def taken(self, most: int) -> Iterator[int]:
        """Takes cores while a block runs.

        Args:
            most: how many the block can use.

        Yields:
            How many it has: those that are idle, up to `most`, and one at least, which runs share
            when there are more runs than cores.
        """
        with self._lock:
            count = max(1, min(most, self._idle))
            self._idle -= count
        try:
            yield count
        finally:
            with self._lock:
                self._idle += count
