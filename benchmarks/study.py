"""Trains several models with several seeds and tabulates their test metrics.

    python -m benchmarks.study --data data/kuairand-pure --config pipelines/configs/kuairand.toml

Finished runs are kept and not repeated; an interrupted one goes on where it stopped. A run of other
settings or data is an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from pipelines.console import reported_errors
from pipelines.evaluate import evaluate_with_progress
from pipelines.train import train_with_progress
from tfrec_feedback.config import Config, load_config
from tfrec_feedback.data.manifest import Manifest, load_manifest

MODELS = "dfn_no_feedback,dfn_click,dfn_internal,dfn,dfn_official_code"
COLUMNS = (("ctr", "auc"), ("ctr", "gauc"), ("dislike", "auc"), ("dislike", "gauc"))


def main(
    data: Annotated[Path, typer.Option(help="Prepared data.")],
    config: Annotated[Path | None, typer.Option(help="TOML file all models share.")] = None,
    models: Annotated[str, typer.Option(help="Model names, separated by commas.")] = MODELS,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each model.")] = 3,
    output: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/study"),
    set: Annotated[list[str] | None, typer.Option(help="Override; repeatable.")] = None,
) -> None:
    """Compares models on one prepared log: same settings, same data, several seeds."""
    console = Console()
    reports: dict[str, list[dict[str, Any]]] = {}
    with reported_errors():
        for name in models.split(","):
            for seed in range(seeds):
                overrides = [f"data.directory={data}", f"model.name={name}", f"train.seed={seed}"]
                run = output / data.name / f"{name}-{seed}"
                report = report_of_run(
                    run, load_config(config, [*(set or []), *overrides]), console
                )
                reports.setdefault(name, []).append(report)
        table = markdown(reports)
    typer.echo(table)
    (output / data.name / "table.md").write_text(table + "\n", encoding="utf-8")


def report_of_run(run: Path, config: Config, console: Console) -> dict[str, Any]:
    """Returns a run's evaluation on the test split, after what of the run is still missing.

    Args:
        run: the run's folder; new, interrupted, finished or evaluated.
        config: its configuration.
        console: where to print.

    Raises:
        RunError: when the folder holds a run of other settings or data.
    """
    path, manifest = run / "evaluation.json", load_manifest(config.data.directory)
    finished = is_finished(run, config, manifest)
    if not finished or not path.is_file():
        console.print(f"{run}")
        if not finished:
            train_with_progress(config, manifest, run, console)
        evaluate_with_progress(run, "test", console, manifest.directory)
    return json.loads(path.read_text(encoding="utf-8"))


def is_finished(run: Path, config: Config, manifest: Manifest) -> bool:
    """Returns whether a run is there and finished.

    Args:
        run: the run's folder.
        config: what it is to be trained with; a setting that is newer than the run counts as the
            default, and data may have moved.
        manifest: what it is to be trained on.

    Raises:
        RunError: when it was finished with other settings or data.
    """
    from tfrec_feedback.runs import RunError, describe_run, to_json

    try:
        described = describe_run(run)
    except RunError:
        return False  # Training goes on with it, or says what is wrong.
    asked = json.loads(to_json(config.model_dump(mode="json")))
    before = {**_by_key(Config().model_dump(mode="json")), **_by_key(described["config"])}
    before["data_fingerprint"] = described["data_fingerprint"]
    now = {**_by_key(asked), "data_fingerprint": manifest.fingerprint}
    differing = sorted(
        key for key in {*before, *now} - {"data.directory"} if before.get(key) != now.get(key)
    )
    if differing:
        raise RunError(
            f"{run} holds a run finished with {_listed(before, differing)}; asked for now: "
            f"{_listed(now, differing)}. Choose another --output, start it as it was, or remove "
            "that folder to have it trained again."
        )
    return True


def _by_key(config: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": x for name, section in config.items() for key, x in section.items()}


def _listed(settings: dict[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key} {settings.get(key)}" for key in keys)


def markdown(reports: dict[str, list[dict[str, Any]]]) -> str:
    """Returns a table: mean over seeds, their deviation, and the mean 95 % interval of one seed.

    Args:
        reports: evaluation reports by model, one a seed.
    """
    heading = [f"{task} {metric.upper()}" for task, metric in COLUMNS]
    lines = ["| model | " + " | ".join(heading) + " |", "|---" * (len(heading) + 1) + "|"]
    for name, seeds in reports.items():
        cells = []
        for task, metric in COLUMNS:
            found = [report["tasks"][task][metric] for report in seeds]
            if any(interval["value"] is None or interval["low"] is None for interval in found):
                cells.append("-")
                continue
            value, low, high = (
                np.mean([interval[key] for interval in found]) for key in ("value", "low", "high")
            )
            spread = np.std([interval["value"] for interval in found])
            cells.append(f"{value:.4f} ± {spread:.4f} ({low:.4f} to {high:.4f})")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
