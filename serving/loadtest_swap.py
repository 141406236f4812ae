"""A rehearsal of a new version: it is published under load, and every answer is judged."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.batching import Scores
from serving.client import FeedbackClient, ServingError
from serving.loadtest_load import Load, open_loop, send
from serving.loadtest_samples import Sample, summary
from serving.versions import version_number

_POLL_SECONDS = 0.02
TOLERANCE = 1e-5
"""Largest difference between two scores that are called equal."""
MOST_POINTS = 2000


class SwapError(RuntimeError):
    """The rehearsal could not be made, or the new version never answered."""


def publish_copy(folder: Path, version: int | None = None) -> Path:
    """Publishes a copy of a version under a new number, all at once.

    The copy is made under a hidden name, flushed and renamed, so that a server that watches the
    folder never sees half of it. The given version is not touched.

    Args:
        folder: a published version, `<base>/<integer>`.
        version: number of the copy; default: one above the highest.

    Returns:
        The new folder.

    Raises:
        SwapError: when the folder is no version, or the number is taken.
    """
    folder = folder.resolve()
    if version_number(folder.name) is None or not folder.is_dir():
        raise SwapError(f"{folder} is no published version: expected a folder <base>/<integer>.")
    base = folder.parent
    numbers = [version_number(entry.name) for entry in base.iterdir()]
    taken = [number for number in numbers if number is not None]
    number = max(taken) + 1 if version is None else version
    target = base / str(number)
    if number in taken:
        raise SwapError(f"Version {number} is already published at {target}.")
    staging = Path(tempfile.mkdtemp(prefix=f".tmp-{number}-", dir=base))
    try:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        for path in (*staging.rglob("*"), staging):
            _flush(path)
        staging.chmod(0o755)
        os.rename(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _flush(base)
    return target


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclasses.dataclass
class _Swap:
    """What the publishing thread saw, in seconds since the load began."""

    begun: threading.Event = dataclasses.field(default_factory=threading.Event)
    start: float = 0.0
    published: float | None = None
    served: float | None = None
    version: int | None = None
    error: Exception | None = None

    def begin(self, moment: float) -> None:
        """Starts the clock of load and publisher alike."""
        self.start = moment
        self.begun.set()

    def now(self) -> float:
        """Returns the seconds since the load began."""
        return time.monotonic() - self.start


def rehearse(load: Load, rate: float, folder: Path, threads: int = 64) -> dict[str, Any]:
    """Publishes a copy of `folder` a third into an open-loop load, and judges every answer.

    An answer is right when it equals, within 1e-5, what the served version answered before the
    load, or what the new one answers after it.

    Args:
        load: what to send; its `seconds` are those of the whole rehearsal.
        rate: mean calls a second.
        folder: version to copy; its base is what the server watches.
        threads: see `open_loop`.

    Returns:
        Summaries `before`, `during` (from publishing until the new version answered) and `after`;
        `swap` with versions and moments; `failed` and `wrong` counts of all answers; `timeline` of
        moments (s) and latencies (ms) to draw.

    Raises:
        SwapError: when the version cannot be published, or does not answer before the load ends.
    """
    load = dataclasses.replace(load, keep_scores=True)
    old_version, old = _reference(load)
    swap = _Swap()
    publisher = threading.Thread(target=_publish, args=(load, folder, swap), daemon=True)
    publisher.start()
    samples = open_loop(load, rate, threads, swap.begin)
    publisher.join(load.timeout + 5.0)
    if swap.error is not None:
        raise SwapError(f"The rehearsal failed: {swap.error}") from swap.error
    if swap.published is None or swap.served is None:
        raise SwapError(
            f"Version {swap.version} did not answer within the load; the server still serves "
            f"{old_version}. If it is still loading, give it more --seconds; else, does it watch "
            f"{folder.resolve().parent}?"
        )
    return _judged(samples, swap, (old_version, old), _reference(load))


def _judged(
    samples: Sequence[Sample],
    swap: _Swap,
    old: tuple[int, list[Scores]],
    new: tuple[int, list[Scores]],
) -> dict[str, Any]:
    published, served = swap.published or 0.0, swap.served or 0.0
    # A call belongs to the swap when any part of it does.
    before = [s for s in samples if s.done < published]
    after = [s for s in samples if s.intended > served]
    during = [s for s in samples if s.done >= published and s.intended <= served]
    step = max(1, len(samples) // MOST_POINTS)
    return {
        "before": summary(before),
        "during": summary(during, published),
        "after": summary(after, served),
        "swap": {
            "from": old[0],
            "to": new[0],
            "published_at": round(published, 3),
            "served_at": round(served, 3),
        },
        "failed": sum(s.code != "OK" for s in samples),
        "wrong": sum(s.scores is not None and not _right(s, old[1], new[1]) for s in samples),
        "timeline": [[round(s.intended, 3), round(1e3 * s.latency, 3)] for s in samples[::step]],
    }


def _reference(load: Load) -> tuple[int, list[Scores]]:
    """Returns the version that serves, and its scores of every payload."""
    with FeedbackClient(load.target, load.model, timeout=load.timeout, **load.options) as client:
        version = client.metadata().version
        return version, [send(client, payload) for payload in load.payloads]


def _right(sample: Sample, old: Sequence[Scores], new: Sequence[Scores]) -> bool:
    given = sample.scores or {}
    return any(
        set(given) == set(expected)
        and all(
            given[task].shape == expected[task].shape
            and np.allclose(given[task], expected[task], rtol=TOLERANCE, atol=TOLERANCE)
            for task in expected
        )
        for expected in (old[sample.index], new[sample.index])
    )


def _publish(load: Load, folder: Path, swap: _Swap) -> None:
    """Publishes after a third of the load, and waits until the version answers."""
    swap.begun.wait()
    time.sleep(load.seconds / 3)
    try:
        with FeedbackClient(
            load.target, load.model, timeout=load.timeout, **load.options
        ) as client:
            client.metadata()  # the connection is made before anything is timed
            swap.published = swap.now()
            swap.version = int(publish_copy(folder).name)
            while swap.now() < load.seconds:
                if _version(client) == swap.version:
                    swap.served = swap.now()
                    return
                time.sleep(_POLL_SECONDS)
    except (OSError, SwapError, ServingError) as error:
        swap.error = error


def _version(client: FeedbackClient) -> int | None:
    try:
        return client.metadata().version
    except ServingError:
        return None  # the load counts failures; the publisher only waits
