"""Logs for benchmarks, and processes of their own to prepare and train in."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import peak_megabytes

KUAIRAND = "kuairand-pure"
_REPOSITORY = Path(__file__).resolve().parent.parent


def log_folder(name: str) -> Path | None:
    """Returns the folder of a real log, if this machine has it.

    Looked for in `$FEEDBACK_DATA`, which `../shared/data` beside the repository stands for.
    """
    folder = _REPOSITORY / os.environ.get("FEEDBACK_DATA", "../shared/data") / name
    return folder if folder.is_dir() else None


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function in a fresh interpreter, for its memory and its right to fork.

    Args:
        function: of a module's top level.
        *args: its arguments.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def prepare_log(
    source: str, path: Path | None, output: str, workers: int, simulation: dict[str, Any]
) -> dict[str, float]:
    """Prepares a log; call it `in_own_process`.

    Args:
        source: name of the log's format.
        path: the log, if it is not simulated.
        output: folder to write.
        workers: processes that write.
        simulation: sizes of a simulated log.

    Returns:
        Seconds of the stages `reading`, `requests`, `histories` and `writing`; counts `events`,
        `rows` (events kept) and `records`; `read_mb` and `peak_mb`, memory after reading and
        at its peak, without the workers.
    """
    from tfrec_feedback.data.prepare import prepare
    from tfrec_feedback.data.sources import load_source

    started: dict[str, float] = {"reading": time.perf_counter()}
    seconds: dict[str, float] = {}

    def watch(stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        seconds[stage] = now - started.setdefault(stage, now)

    log = load_source(source, path, **simulation)
    watch("reading", 1, 1)
    read = peak_megabytes()
    manifest = prepare(log, output, workers=workers, progress=watch)
    splits = manifest.splits.values()
    return {
        **seconds,
        "events": len(log.events),
        "rows": sum(split.candidates for split in splits),
        "records": sum(split.requests for split in splits),
        "read_mb": read,
        "peak_mb": peak_megabytes(),
    }
