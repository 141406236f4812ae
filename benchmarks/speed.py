"""How fast every model of the papers' tables trains and answers, on both real logs.

The columns of speed of `python -m pipelines.benchmark`, taken alone, without training anything
first: settings are those that the models of a suite share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.logs import log_folder
from benchmarks.measure import Report
from tfrec_feedback.benchmark.rows import Row
from tfrec_feedback.benchmark.study import Study
from tfrec_feedback.benchmark.suites import DEFAULT_MODELS, Suite, find_suite, suite_data
from tfrec_feedback.benchmark.timing import NUM_CANDIDATES, time_models

CONFIGS = Path(__file__).resolve().parent.parent / "pipelines" / "configs"


def run(
    suites: Sequence[str] = ("kuairand-pure", "kuairand-27k-feedback"),
    models: Sequence[str] = DEFAULT_MODELS,
    batches: int = 3,
    rounds: int = 7,
) -> list[Report]:
    """Times all models of each suite in turn.

    Args:
        suites: names; those whose log this machine lacks are left out.
        models: names.
        batches: of a timed round of training.
        rounds: timed rounds; medians are reported.
    """
    reports = []
    for name in suites:
        suite = find_suite(name)
        folder = log_folder(suite.log) if suite.log else None
        if folder or not suite.log:
            reports.append(_timed(suite, folder and folder.parent, models, batches, rounds))
    return reports


def _timed(
    suite: Suite, logs: Path | None, models: Sequence[str], batches: int, rounds: int
) -> Report:
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        manifest = suite_data(suite, data, logs)
        study = Study(Path(scratch), data, CONFIGS / suite.config)
        configs = {model: study.resolved(Row(model, model), {}, 0) for model in models}
        timings = time_models(configs, manifest, batches=batches, rounds=rounds)
    fastest = {
        "samples": max(timing.samples_per_second for timing in timings.values()),
        "ms": min(timing.latency_ms for timing in timings.values()),
    }
    report = Report(
        f"{suite.name}: training and answering",
        ["model", "samples/s", "of fastest", f"ms, N = {NUM_CANDIDATES}", "times fastest"],
        notes=[
            "Medians, models in turn. Samples: candidates of training steps, data ready in memory.",
            f"ms: one request of {NUM_CANDIDATES} candidates from raw features, longest histories.",
        ],
    )
    for model, timing in timings.items():
        speed, latency = timing.samples_per_second, timing.latency_ms
        of_fastest = f"{speed / fastest['samples']:.2f}"
        report.rows.append([model, speed, of_fastest, latency, f"{latency / fastest['ms']:.1f}"])
    return report
