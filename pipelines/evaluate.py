"""Evaluates a run on a split: `python -m pipelines.evaluate --help`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.console import (
    comparison_table,
    metrics_table,
    progress_bar,
    reported_errors,
    slices_table,
)
from tfrec_feedback.data.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    from tfrec_feedback.evaluation import Predictions


def main(
    run: Annotated[Path, typer.Option(help="Run folder of pipelines.train.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    data: Annotated[
        Path | None, typer.Option(help="Prepared data; default: the run's own.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run to compare with on the same exposures.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Skip and count damaged records.")
    ] = False,
) -> None:
    """Prints a table of metrics with intervals, and writes it to RUN/evaluation.json."""
    with reported_errors():
        console = Console()
        report = evaluate_with_progress(run, split, console, data, skip_corrupt, against)
        console.print(metrics_table(report, f"{run}, {split}"))
        console.print(slices_table(report))
        if against is not None:
            title = f"{run} less {against}, {split}"
            console.print(comparison_table(report["against"]["tasks"], title))
        console.print(f"Written to {run / 'evaluation.json'}", soft_wrap=True)


def evaluate_with_progress(
    run: Path,
    split: str,
    console: Console,
    data: Path | None = None,
    skip_corrupt: bool = False,
    against: Path | None = None,
) -> dict[str, Any]:
    """Evaluates a run and writes `evaluation.json` into its folder.

    Args:
        run: the run's folder.
        split: name of the split.
        console: where to print.
        data: prepared data, if not the run's own.
        skip_corrupt: skips and counts damaged records, as a run trained that way always does.
        against: another run, scored on the same data.

    Returns:
        The report of `tfrec_feedback.evaluation.evaluate`; with `against` that of `compare`.
    """
    from tfrec_feedback.evaluation import compare, evaluate
    from tfrec_feedback.runs import RUN_FILE

    scored, manifest = score_with_progress(run, split, console, data, skip_corrupt=skip_corrupt)
    with console.status("computing intervals ..."):
        report = {"split": split, "data": manifest.source, **evaluate(scored)}
    if against is not None:
        described = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
        settings = described["config"]["data"]
        skip_corrupt = skip_corrupt or settings["skip_corrupt"]
        other, _ = score_with_progress(
            against, split, console, manifest.directory, settings["batch_size"], skip_corrupt
        )
        report["against"] = {"run": str(against), "tasks": compare(scored, other)}
    (run / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def score_with_progress(
    run: Path,
    split: str,
    console: Console,
    data: Path | None = None,
    batch_size: int | None = None,
    skip_corrupt: bool = False,
) -> tuple[Predictions, Manifest]:
    """Scores a split with a run's model.

    Args:
        run: the run's folder.
        split: name of the split.
        console: where to print.
        data: prepared data, if not the run's own.
        batch_size: requests a batch, if not the run's own; it decides the order of exposures.
        skip_corrupt: as in `evaluate_with_progress`.

    Returns:
        The predictions, and the data they are for.
    """
    from tfrec_feedback.data.dataset import check_shards, naming_damage, request_dataset
    from tfrec_feedback.evaluation import predict
    from tfrec_feedback.runs import load_run

    model, description = load_run(run)
    settings = description["config"]["data"]
    manifest = load_manifest(data or settings["directory"])
    if manifest.fingerprint != description["data_fingerprint"]:
        message = f"These are not the data the run was trained on: {run}"
        console.print(f"[yellow]{message}[/yellow]", soft_wrap=True)
    total, paths = manifest.split(split).requests, None
    with tempfile.TemporaryDirectory() as scratch, progress_bar(console) as progress:
        if skip_corrupt or settings["skip_corrupt"]:
            paths, found = check_shards(manifest, split, scratch=Path(scratch))
            if total > found.records:
                skipped = f"{total - found.records:,} damaged records skipped."
                console.print(f"[yellow]{skipped}[/yellow]")
            total = found.records
        dataset = request_dataset(
            manifest,
            split,
            batch_size or settings["batch_size"],
            encoder=model.encoder,
            metadata=True,
            paths=paths,
        )
        task = progress.add_task("scoring", total=total, status="")
        with naming_damage(manifest, split):
            scored = predict(model, dataset, lambda n: progress.update(task, advance=n))
    return scored, manifest


if __name__ == "__main__":
    typer.run(main)
