"""From a raw log to records: speed and memory, and the memory of a short training on them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.logs import KUAIRAND, in_own_process, log_folder, prepare_log
from benchmarks.measure import Report, peak_megabytes

_LARGE = {"num_users": 6_000, "num_items": 5_000, "num_days": 28}  # About 1,050,000 exposures.


def run(
    simulation: dict[str, int] | None = None,
    workers: int = 2,
    training_steps: int = 50,
    real: bool = True,
) -> Report:
    """Prepares a simulated log, and KuaiRand-Pure where it is, each in a process of its own.

    Args:
        simulation: sizes of the simulated log.
        workers: processes that write.
        training_steps: steps of the short training.
        real: whether KuaiRand-Pure is looked for.
    """
    logs: list[tuple[str, Path | None, dict[str, int]]] = [
        ("simulated", None, _LARGE if simulation is None else simulation)
    ]
    folder = log_folder(KUAIRAND) if real else None
    if folder is not None:
        logs.append((KUAIRAND, folder, {}))
    report = Report(
        f"Preparation, {workers} workers",
        [
            "log",
            "exposures",
            "history rows/s",
            "records/s",
            "seconds in all",
            "MB, log read",
            "MB, peak",
            "MB, training",
        ],
        notes=[
            "History rows: exposures whose histories are found. Memory is the peak of the main "
            f"process; training is {training_steps} steps of DFN, d = 64, 256 requests each."
        ],
    )
    for source, path, options in logs:
        with tempfile.TemporaryDirectory() as output:
            found = in_own_process(prepare_log, source, path, output, workers, options)
            trained = in_own_process(_train_briefly, output, training_steps)
        stages = ("reading", "requests", "histories", "writing")
        report.rows.append(
            [
                source,
                found["events"],
                found["rows"] / found["histories"],
                found["records"] / found["writing"],
                sum(found[stage] for stage in stages),
                found["read_mb"],
                found["peak_mb"],
                trained,
            ]
        )
    return report


def _train_briefly(directory: str, steps: int) -> float:
    """Trains DFN for some steps and returns the peak memory of this process."""
    from tfrec_feedback.data.dataset import request_dataset
    from tfrec_feedback.data.manifest import load_manifest
    from tfrec_feedback.models import build_model
    from tfrec_feedback.optimizers import LazyAdam

    manifest = load_manifest(directory)
    model: Any = build_model("dfn", manifest.schema())
    model.compile(LazyAdam())
    batches = request_dataset(manifest, "train", 256, shuffle_seed=0, encoder=model.encoder)
    model.fit(batches.take(steps), verbose=0)
    return peak_megabytes()
