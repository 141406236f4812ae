"""Finds flags of the embedded server that carry the most load within a latency target.

Flags are swept one after the other, each at the best of those before: a few runs instead of their
product. Every setting is a server of its own, loaded by callers that wait. What the best of them
carries is then measured by calls that do not wait, whose latencies leave nothing out.
"""

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

from serving.cores import usable_cores
from serving.loadtest_load import Load, Payload, closed_loop, open_loop
from serving.loadtest_samples import summary

_CHUNKS = (128, 256, 512, 1024)
_GAIN = 1.05
_SHARES = (0.9, 0.7, 0.5, 0.3, 0.1)
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
        seconds: of one load.
        concurrency: callers of the loads of one setting.
        options: further options of the server's command line.
    """

    base: Path
    model: str
    payloads: Sequence[Payload]
    p99_ms: float
    seconds: float = 5.0
    concurrency: tuple[int, ...] = (1, 2, 4, 8)
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
    """Sweeps the flags that the installed server has, and names the best.

    Returns:
        `runs` with settings and summaries; `flags` of the best setting; `rate`, the calls a second
        that it carried within the target (None when it carried none), and whether it is `within`.
        The best setting has the highest throughput of those within; the lowest p99 when none is. A
        flag that does not gain a twentieth is left to its default: less is noise.

    Raises:
        TuneError: when a server does not start.
    """
    runs: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    known = _server_flags()
    for flag, values in _knobs().items():
        if flag not in known:
            continue
        chosen = _flags(best["settings"]) if best else {}
        found = [run for value in values for run in _measured(tuning, {**chosen, flag: value})]
        runs += found
        fastest = _best(found, tuning.p99_ms)
        if best is None or _gains(fastest, best, tuning.p99_ms):
            best = fastest
    if best is None:
        raise TuneError(f"The installed server has none of the flags {list(_knobs())}.")
    chosen = _flags(best["settings"])
    carried = _carried(tuning, chosen, best["throughput"])
    within = [run for run in carried if _within(run, tuning.p99_ms)]
    return {
        "p99_target_ms": tuning.p99_ms,
        "runs": runs + carried,
        "flags": flags_of(chosen),
        "rate": within[0]["settings"]["rate"] if within else None,
        "within": bool(within),
    }


def flags_of(settings: dict[str, int]) -> list[str]:
    """Returns settings as a command line takes them."""
    return [text for name, value in settings.items() for text in (name, str(value))]


def write_flags(path: Path, flags: Sequence[str]) -> None:
    """Writes flags to a file that a shell expands: `python -m serving.server $(cat FILE) ...`."""
    path.write_text(shlex.join(flags) + "\n", encoding="utf-8")


def _knobs() -> dict[str, list[int]]:
    """Returns the flags that are swept, and the values that are tried."""
    cores = usable_cores()
    return {
        "--workers": sorted({1, cores, 2 * cores, 4 * cores}),
        "--tensorflow-inter-op": sorted({1, cores}),
        "--tensorflow-intra-op": sorted({1, cores}),
        "--chunk-rows": list(_CHUNKS),
        "--spread": sorted({1, cores}),
    }


def _measured(tuning: Tuning, settings: dict[str, int]) -> list[dict[str, Any]]:
    """Measures one setting at every number of callers."""
    runs = []
    with _loaded(tuning, settings) as load:
        for callers in tuning.concurrency:
            found = summary(closed_loop(load, callers))
            runs.append({"settings": {**settings, "callers": callers}, **found})
    return runs


def _carried(tuning: Tuning, settings: dict[str, int], throughput: float) -> list[dict[str, Any]]:
    """Measures open loops of falling rates, up to the first one within the target."""
    runs: list[dict[str, Any]] = []
    with _loaded(tuning, settings) as load:
        for share in _SHARES:
            rate = max(round(share * throughput, 1), 0.1)
            found = summary(open_loop(load, rate))
            runs.append({"settings": {"rate": rate}, **found})
            if _within(runs[-1], tuning.p99_ms):
                break
    return runs


@contextlib.contextmanager
def _loaded(tuning: Tuning, settings: dict[str, int]) -> Iterator[Load]:
    """Runs a server, warm, and yields the load for it."""
    flags = [*flags_of(settings), *tuning.options]
    with embedded_server(tuning.base, tuning.model, flags) as target:
        load = Load(target, tuning.model, tuning.payloads, tuning.seconds)
        warm_up = dataclasses.replace(load, seconds=min(1.0, tuning.seconds))
        closed_loop(warm_up, max(tuning.concurrency))
        yield load


def _within(run: dict[str, Any], p99_ms: float) -> bool:
    p99 = run["latency_ms"]["p99"]
    return not run["failed"] and p99 is not None and p99 <= p99_ms


def _best(runs: Sequence[dict[str, Any]], p99_ms: float) -> dict[str, Any]:
    within = [run for run in runs if _within(run, p99_ms)]
    if within:
        return max(within, key=lambda run: run["throughput"])
    return min(runs, key=lambda run: (run["failed"], run["latency_ms"]["p99"] or float("inf")))


def _gains(run: dict[str, Any], best: dict[str, Any], p99_ms: float) -> bool:
    """Returns whether a setting is better by more than noise."""
    within = _within(run, p99_ms), _within(best, p99_ms)
    if all(within):
        return run["throughput"] >= _GAIN * best["throughput"]
    if not any(within):
        return _GAIN * (run["latency_ms"]["p99"] or float("inf")) <= (
            best["latency_ms"]["p99"] or float("inf")
        )
    return within[0]


def _flags(settings: dict[str, int]) -> dict[str, int]:
    """Returns the flags of a setting, without the number of callers."""
    return {name: value for name, value in settings.items() if name.startswith("--")}


def _server_flags() -> set[str]:
    """Returns the options the installed server knows."""
    command = [sys.executable, "-m", "serving.server", "--help"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    return set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))
