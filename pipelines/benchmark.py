"""Compares models on one log, all tuned alike: `python -m pipelines.benchmark --help`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.console import benchmark_table, reported_errors
from tfrec_feedback.benchmark.suites import DEFAULT_MODELS, SUITES, check_models, find_suite
from tfrec_feedback.data.manifest import load_manifest

if TYPE_CHECKING:
    from tfrec_feedback.benchmark.cells import Timing
    from tfrec_feedback.benchmark.importance import Importance
    from tfrec_feedback.benchmark.rows import Row
    from tfrec_feedback.benchmark.study import Study
    from tfrec_feedback.data.manifest import Manifest

_CONFIGS = Path(__file__).parent / "configs"


def main(  # noqa: PLR0913 - one parameter an option
    suite: Annotated[str, typer.Option(help=f"Which log: {', '.join(SUITES)}.")],
    models: Annotated[str, typer.Option(help="Model names, separated by commas.")] = ",".join(
        DEFAULT_MODELS
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each row.")] = 3,
    budget: Annotated[int, typer.Option(min=0, help="Trials of tuning a model; 0: none.")] = 8,
    output: Annotated[Path, typer.Option(help="Results go to OUTPUT/SUITE.")] = Path(
        "runs/benchmark"
    ),
    logs: Annotated[
        Path | None, typer.Option(help="Raw logs; default: $FEEDBACK_DATA or ../shared/data.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data, instead of the suite's own.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of shared settings, instead of the suite's.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="Override for all models, never tuned; repeatable.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="A row for each value, e.g. model.dislike_weight=1,5; repeatable: grid."),
    ] = None,
    drop_feedback: Annotated[
        bool, typer.Option("--drop-feedback", help="Adds rows without each feedback history.")
    ] = False,
    importance: Annotated[
        str | None,
        typer.Option(help="Permutes the features of this finished model instead of training."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that models share.")] = 1,
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Keeps earlier timings, takes none.")
    ] = False,
) -> None:
    """Tunes models with equal budgets, trains each with several seeds, and compares them.

    What is finished is kept: start the same command again to go on after an interruption, or
    with more models to add rows.
    """
    with reported_errors():
        if sum([bool(sweep), drop_feedback, importance is not None]) > 1:
            raise ValueError("--sweep, --drop-feedback and --importance exclude each other.")
        console = Console()
        chosen = find_suite(suite)
        names = [importance] if importance is not None else models.split(",")
        names = check_models([name.strip() for name in names if name.strip()])
        folder = output / chosen.name
        from tfrec_feedback.benchmark.study import Study
        from tfrec_feedback.benchmark.suites import suite_data

        study = Study(
            folder=folder,
            data=data or folder / "data",
            config=config or _CONFIGS / chosen.config,
            overrides=tuple(set or ()),
            seeds=seeds,
            budget=budget,
        )
        if data is None and not study.data.is_dir():
            console.print(f"Preparing {chosen.name} into {study.data} ...", soft_wrap=True)
        # Prepared data that are named are never made: the name may be mistyped.
        manifest = load_manifest(data) if data else suite_data(chosen, study.data, logs)
        if importance is not None:
            _print_importance(study, manifest, names[0], console)
            return
        rows, suffix = _rows(study, manifest, names, sweep or [], drop_feedback)
        _compare(study, manifest, rows, suffix, workers, no_timing, console)


def say(line: str) -> None:
    """Prints one line at once; workers call it in their own processes."""
    Console().print(line, soft_wrap=True, markup=False, highlight=False)


def _rows(
    study: Study, manifest: Manifest, names: Sequence[str], sweep: Sequence[str], drop: bool
) -> tuple[list[Row], str]:
    """Returns the rows asked for, and what their files' names end in."""
    from tfrec_feedback.benchmark.rows import Row, dropped_rows, model_rows, sweep_rows

    if sweep:
        keys = [text.partition("=")[0].strip().split(".")[-1] for text in sweep]
        return sweep_rows(names, sweep), "-sweep-" + re.sub(r"\W+", "-", "-".join(keys))
    if drop:
        shared = study.resolved(Row(names[0], names[0]), {}, 0)
        return dropped_rows(names, manifest.schema(), shared), "-drop-feedback"
    return model_rows(names), ""


def _compare(  # noqa: PLR0913 - the study, and how it is reported
    study: Study,
    manifest: Manifest,
    rows: Sequence[Row],
    suffix: str,
    workers: int,
    no_timing: bool,
    console: Console,
) -> None:
    """Makes what is missing, then prints the table and writes it down."""
    from tfrec_feedback.benchmark.cells import load_cell
    from tfrec_feedback.benchmark.comparison import compare_cells, write_csv
    from tfrec_feedback.benchmark.report import write_report
    from tfrec_feedback.benchmark.running import run_study

    run_study(study, rows, workers, say)
    cells = [
        load_cell(study.cell_folder(row.label, seed)) for row in rows for seed in range(study.seeds)
    ]
    timings = _timings(study, manifest, rows, no_timing or bool(suffix), console)
    labels = [row.label for row in rows]
    with console.status("comparing ..."):
        base = "fm" if "fm" in labels else labels[0]
        comparison = compare_cells(cells, timings, base=base)
    title = f"{study.folder.name}, {_counted(study.seeds, 'seed')}{suffix.replace('-', ' ')}"
    table, report = study.folder / f"table{suffix}.csv", study.folder / f"report{suffix}.html"
    write_csv(comparison, table)
    write_report(comparison, cells, report, title=title, notes=_notes(study, manifest, rows))
    console.print(benchmark_table(comparison, title))
    console.print(f"Written to {table} and {report}", soft_wrap=True)


def _timings(
    study: Study, manifest: Manifest, rows: Sequence[Row], keep: bool, console: Console
) -> dict[str, Timing]:
    """Times all models in one go, or returns earlier timings if they are complete."""
    from tfrec_feedback.benchmark.cells import load_cell
    from tfrec_feedback.benchmark.timing import load_timings, save_timings, time_models

    path = study.folder / "timings.json"
    labels = [row.label for row in rows]
    if keep:
        kept = load_timings(path)
        missing = [label for label in labels if label not in kept]
        if kept and missing:
            console.print(
                f"[yellow]No speeds in the table: {path} lacks {missing}, and only models timed "
                "together are compared.[/yellow]",
                soft_wrap=True,
            )
        return {} if missing else {label: kept[label] for label in labels}
    configs = {}
    for row in rows:
        settings = load_cell(study.cell_folder(row.label, 0)).settings
        configs[row.label] = study.resolved(row, settings, 0)
    with console.status("timing ..."):
        timings = time_models(configs, manifest)
    save_timings(path, timings)
    return timings


def _notes(study: Study, manifest: Manifest, rows: Sequence[Row]) -> list[str]:
    """Returns how the numbers were made, for the report."""
    from tfrec_feedback.benchmark.rows import key_of

    split = manifest.split("test")
    # A sweep gives every row a value of its own: what was set is set for none.
    replaced = set.intersection(*({key_of(text) for text in row.overrides} for row in rows))
    kept = [text for text in study.overrides if key_of(text) not in replaced]
    return [
        f"Data: {manifest.source}, fingerprint {manifest.fingerprint[:12]}; test split of "
        f"{split.requests:,} requests and {split.candidates:,} candidates.",
        _tuning_note(study, rows),
        _training_note(study, rows),
        *(["Set for all: " + ", ".join(kept) + "."] if kept else []),
    ]


def _tuning_note(study: Study, rows: Sequence[Row]) -> str:
    if not rows[0].tune:
        return (
            "Beside what is swept or set, rows take the settings their model was tuned to earlier, "
            "or else the shared ones."
        )
    keys = dict.fromkeys(key for row in rows for key in study.space(row.model))
    if study.budget == 0 or not keys:
        return "No model was tuned: all take the shared settings."
    monitor = study.resolved(rows[0], {}, 0).train.impression_monitor
    return (
        f"Tuned, as far as a model has them: {', '.join(keys)}; {_counted(study.budget, 'trial')} "
        f"a model, the first with the shared settings, judged by {monitor} on validation."
    )


def _training_note(study: Study, rows: Sequence[Row]) -> str:
    """Says how all rows were trained; what differs between them is in their labels."""
    by_row = []
    for row in rows:
        config = study.resolved(row, {}, 0)
        epochs, patience = _counted(config.train.epochs, "epoch"), config.train.patience
        batches = f"batches of {_counted(config.data.batch_size, 'request')}"
        by_row.append([f"at most {epochs}", f"patience {patience}", batches])
    shared = [texts[0] for texts in zip(*by_row, strict=True) if len(set(texts)) == 1]
    text = ", ".join([*shared, _counted(study.seeds, "seed")])
    return f"{text[0].upper()}{text[1:]}."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print_importance(study: Study, manifest: Manifest, model: str, console: Console) -> None:
    """Measures a finished model, prints the table and writes it down."""
    from tfrec_feedback.benchmark.importance import permutation_importance, write_importance
    from tfrec_feedback.data.dataset import request_dataset
    from tfrec_feedback.runs import load_run

    run = study.cell_folder(model, 0) / "run"
    if not run.is_dir():
        raise ValueError(
            f"No finished {model!r} in {study.folder}: run the benchmark with --models {model} "
            "first."
        )
    loaded, description = load_run(run)
    if description["data_fingerprint"] != manifest.fingerprint:
        raise ValueError(f"{run} was trained on other data than those in {manifest.directory}.")
    size = description["config"]["data"]["batch_size"]
    dataset = request_dataset(manifest, "test", size, metadata=True)
    with console.status("permuting ..."):
        found = permutation_importance(loaded, dataset)
    path = study.folder / f"importance-{model}.csv"
    write_importance(found, path)
    console.print(importance_table(found, f"{model} on {study.folder.name}, test"))
    console.print(f"Written to {path}", soft_wrap=True)


def importance_table(found: Sequence[Importance], title: str) -> Table:
    """Lays out `permutation_importance`: a row an input, two columns a task."""
    tasks = list(dict.fromkeys(entry.task for entry in found))
    by_group: dict[tuple[str, str], dict[str, Importance]] = {}
    for entry in found:
        by_group.setdefault((entry.kind, entry.group), {})[entry.task] = entry
    table = Table(title=title, caption="Loss when the input is shuffled: mean ± deviation.")
    table.add_column("")
    table.add_column("input")
    for task in tasks:
        table.add_column(f"{task} GAUC", justify="right")
        table.add_column(f"{task} AUC", justify="right")
    for (kind, group), entries in by_group.items():
        cells = []
        for e in (entries[task] for task in tasks):
            cells.append(f"{e.gauc:+.4f} ± {e.gauc_deviation:.4f}")
            cells.append(f"{e.auc:+.4f} ± {e.auc_deviation:.4f}")
        table.add_row(kind, group, *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
