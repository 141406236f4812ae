"""Evaluates a run on a split: `python -m pipelines.evaluate --help`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.console import (
    comparison_table,
    metrics_table,
    progress_bar,
    ranking_comparison_table,
    ranking_table,
    reported_errors,
    slices_table,
)
from tfrec_feedback.data.manifest import Manifest, load_manifest, write_atomically

if TYPE_CHECKING:
    from tfrec_feedback.evaluation import Predictions

_CUTOFFS = "5,20,50"


def main(
    run: Annotated[Path, typer.Option(help="Run folder of pipelines.train.")],
    split: Annotated[
        str, typer.Option(help="train, validation or test; more where the data have more.")
    ] = "test",
    data: Annotated[
        Path | None, typer.Option(help="Prepared data; default: the run's own.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run to compare with on the same exposures.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Skip and count damaged records.")
    ] = False,
    cutoffs: Annotated[
        str, typer.Option(help="K of Recall@K and NDCG@K, on interactions.")
    ] = _CUTOFFS,
) -> None:
    """Prints a table of metrics with intervals, and writes it to RUN/evaluation.json.

    Runs on interactions are judged by ranking the whole catalogue for every user.
    """
    with reported_errors():
        console = Console()
        if run_data(run, data).format == "interactions":
            if skip_corrupt:
                raise ValueError(
                    "--skip-corrupt is for records of requests alone, and these data are "
                    "interactions, which are read as a whole. Leave it out."
                )
            found = rank_with_progress(run, split, console, data, against, _integers(cutoffs))
            console.print(ranking_table(found, f"{run}, {split}"))
            if against is not None:
                title = f"{run} less {against}, {split}"
                console.print(ranking_comparison_table(found["against"]["metrics"], title))
            console.print(f"Written to {run / 'evaluation.json'}", soft_wrap=True)
            return
        if cutoffs != _CUTOFFS:
            raise ValueError(
                f"--cutoffs={cutoffs} is for interactions alone, and these data are requests, "
                "whose exposures are scored and not ranked. Leave it out."
            )
        report = evaluate_with_progress(run, split, console, data, skip_corrupt, against)
        console.print(metrics_table(report, f"{run}, {split}"))
        console.print(slices_table(report))
        if against is not None:
            title = f"{run} less {against}, {split}"
            console.print(comparison_table(report["against"]["tasks"], title))
        console.print(f"Written to {run / 'evaluation.json'}", soft_wrap=True)


def run_data(run: Path, data: Path | None = None) -> Manifest:
    """Returns the prepared data of a run, or those in `data`."""
    from tfrec_feedback.runs import describe_run

    return load_manifest(data or describe_run(run)["config"]["data"]["directory"])


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--cutoffs: expected numbers such as 5,20, got {text!r}.") from error


def rank_with_progress(
    run: Path,
    split: str,
    console: Console,
    data: Path | None = None,
    against: Path | None = None,
    cutoffs: Sequence[int] = (5, 20, 50),
) -> dict[str, Any]:
    """Ranks the catalogue for every user of a split, and writes `evaluation.json` into the run.

    Args:
        run: the run's folder.
        split: name of the split.
        console: where to print.
        data: prepared interactions, if not the run's own.
        against: another run, ranked on the same data.
        cutoffs: K of the metrics.

    Returns:
        The report of `tfrec_feedback.full_ranking.ranking_report`; with `against` the differences
        of `compare_rankings` beside it.
    """
    from tfrec_feedback.data.interaction_dataset import load_interactions
    from tfrec_feedback.full_ranking import compare_rankings, rank_catalogue, ranking_report
    from tfrec_feedback.runs import load_run

    manifest = run_data(run, data)
    table = load_interactions(manifest)

    def ranked(of: Path) -> Any:
        model, description = load_run(of)
        if manifest.fingerprint != description["data_fingerprint"]:
            message = f"These are not the data the run was trained on: {of}"
            console.print(f"[yellow]{message}[/yellow]", soft_wrap=True)
        with progress_bar(console) as progress:
            total = len(set(table.split(split).users.tolist()))
            task = progress.add_task("ranking", total=total, status="")
            return rank_catalogue(
                model,
                table,
                split,
                max(cutoffs),
                on_batch=lambda n: progress.update(task, advance=n),
            )

    found = ranked(run)
    with console.status("computing intervals ..."):
        report = {
            "split": split,
            "data": manifest.source,
            **ranking_report(found, table.activity, cutoffs),
        }
    if against is not None:
        differences = compare_rankings(found, ranked(against), cutoffs)
        report["against"] = {"run": str(against), "metrics": differences}
    _write(report, run)
    return report


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
    from tfrec_feedback.runs import describe_run

    scored, manifest = score_with_progress(run, split, console, data, skip_corrupt=skip_corrupt)
    with console.status("computing intervals ..."):
        report = {"split": split, "data": manifest.source, **evaluate(scored)}
    if against is not None:
        settings = describe_run(run)["config"]["data"]
        skip_corrupt = skip_corrupt or settings["skip_corrupt"]
        other, _ = score_with_progress(
            against, split, console, manifest.directory, settings["batch_size"], skip_corrupt
        )
        report["against"] = {"run": str(against), "tasks": compare(scored, other)}
    _write(report, run)
    return report


def _write(report: dict[str, Any], run: Path) -> None:
    from tfrec_feedback.runs import to_json

    write_atomically(run / "evaluation.json", (to_json(report) + "\n").encode("utf-8"))


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
