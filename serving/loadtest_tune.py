"""Finds flags of the embedded server that carry the most load within a latency target."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from serving.loadtest_load import Load, Payload, closed_loop
from serving.loadtest_samples import summary

WORKERS = "--workers"
CHUNK = "--chunk-rows"
CHUNKS = (64, 128, 256, 512)
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


class TuneError(RuntimeError):
    """The embedded server did not start."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What to tune for.

    Attributes:
        base: folder of the model's versions.
        model: name to serve it under.
        payloads: requests of the load.
        p99_ms: the latency target.
        seconds: of load a setting.
        concurrency: callers of the load.
        options: further options of the server's command line.
    """

    base: Path
    model: str
    payloads: Sequence[Payload]
    p99_ms: float
    seconds: float = 5.0
    concurrency: int = 8
    options: tuple[str, ...] = ()


@contextlib.contextmanager
def embedded_server(base: Path, model: str, flags: Sequence[str] = ()) -> Iterator[str]:
    """Runs `python -m serving.server` and yields its target.

    Args:
        base: folder of the model's versions.
        model: name to serve it under.
        flags: further options of its command line.

    Raises:
        TuneError: when it does not start; holds what it said.
    """
    command = [sys.executable, "-m", "serving.server", "--model-base-path", str(base)]
    command += ["--model-name", model, "--host", "127.0.0.1", "--port", "0", *flags]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        watchdog = threading.Timer(_START_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
            watchdog.cancel()
            if not line:
                log.seek(0)
                raise TuneError(f"The server did not start: {log.read().strip()[-2000:]}")
            yield json.loads(line)["target"]
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def tune(tuning: Tuning) -> dict[str, Any]:
    """Measures settings one dimension after the other, and names the best.

    Threads are swept first, then (where the server has the flag) rows a chunk at the best number
    of threads: a few runs instead of their product.

    Returns:
        `runs` with flags and summaries, `flags` of the best, and whether it is `within` the
        target. The best has the highest throughput of those within; the lowest p99 when none is.
    """
    runs: list[dict[str, Any]] = []
    for workers in _settings():
        runs.append(_measured(tuning, {WORKERS: workers}))
    best = _best(runs, tuning.p99_ms)
    if CHUNK in _server_flags():
        for rows in CHUNKS:
            runs.append(_measured(tuning, {**best["settings"], CHUNK: rows}))
        best = _best(runs, tuning.p99_ms)
    return {
        "p99_target_ms": tuning.p99_ms,
        "runs": runs,
        "flags": flags_of(best["settings"]),
        "within": _within(best, tuning.p99_ms),
    }


def flags_of(settings: dict[str, int]) -> list[str]:
    """Returns settings as a command line takes them."""
    return [text for name, value in settings.items() for text in (name, str(value))]


def write_flags(path: Path, flags: Sequence[str]) -> None:
    """Writes flags to a file that a shell expands: `python -m serving.server $(cat FILE) ...`."""
    path.write_text(shlex.join(flags) + "\n", encoding="utf-8")


def _settings() -> list[int]:
    """Returns the numbers of threads that are tried."""
    cores = os.cpu_count() or 1
    return sorted({1, cores, 2 * cores, 4 * cores})


def _measured(tuning: Tuning, settings: dict[str, int]) -> dict[str, Any]:
    flags = [*flags_of(settings), *tuning.options]
    with embedded_server(tuning.base, tuning.model, flags) as target:
        load = Load(target, tuning.model, tuning.payloads, tuning.seconds)
        # Threads and caches warm up outside the measurement.
        closed_loop(dataclasses.replace(load, seconds=min(1.0, tuning.seconds)), tuning.concurrency)
        return {"settings": settings, **summary(closed_loop(load, tuning.concurrency))}


def _within(run: dict[str, Any], p99_ms: float) -> bool:
    p99 = run["latency_ms"]["p99"]
    return not run["failed"] and p99 is not None and p99 <= p99_ms


def _best(runs: Sequence[dict[str, Any]], p99_ms: float) -> dict[str, Any]:
    within = [run for run in runs if _within(run, p99_ms)]
    if within:
        return max(within, key=lambda run: run["throughput"])
    return min(runs, key=lambda run: (run["failed"], run["latency_ms"]["p99"] or float("inf")))


def _server_flags() -> set[str]:
    """Returns the options the installed server knows."""
    command = [sys.executable, "-m", "serving.server", "--help"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    return set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))
