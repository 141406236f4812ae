"""Turns a feedback log into sharded TFRecords of requests: `python -m pipelines.prepare --help`."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from pipelines.console import fail
from tfrec_feedback.data.history import FEEDBACKS, KINDS
from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.data.prepare import check_output, prepare
from tfrec_feedback.data.sources import SOURCES, load_source
from tfrec_feedback.schema import Schema

_SIMULATION = ("num_users", "num_items", "num_days")


class _Stages:
    """Shows how far each stage is, and remembers how long it took."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
            self._started[stage] = time.perf_counter()
        self._progress.update(self._tasks[stage], completed=done)
        self.seconds[stage] = time.perf_counter() - self._started[stage]


def main(  # noqa: PLR0913 - one parameter an option
    source: Annotated[str, typer.Option(help=f"Kind of log: {', '.join(SOURCES)}.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    input: Annotated[
        Path | None, typer.Option(help="File or folder of the log (not for `simulated`).")
    ] = None,
    history_length: Annotated[int, typer.Option(min=1, help="Events kept a history.")] = 30,
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Items drawn per feedback from the user's whole earlier log, for the triplet loss "
            "of DUMN; 0 leaves them out.",
        ),
    ] = 4,
    sessions: Annotated[
        int,
        typer.Option(
            min=0,
            help="Sessions told apart in every history, for DSIN; 0 leaves them out.",
        ),
    ] = 0,
    session_gap: Annotated[
        float, typer.Option(help="Minutes without an event of its kind that end a session.")
    ] = 30.0,
    histories: Annotated[
        str, typer.Option(help=f"Which to build, some of: {', '.join(KINDS)}.")
    ] = ",".join(FEEDBACKS),
    lag: Annotated[
        float, typer.Option(min=0.0, help="Seconds until an event is known to later requests.")
    ] = 0.0,
    schema: Annotated[
        Path | None,
        typer.Option(help="JSON schema that decides inputs, histories, samples, sessions, tasks."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Train, validation, test shares in time, for logs without a split.")
    ] = "0.8,0.1,0.1",
    min_count: Annotated[
        int, typer.Option(min=1, help="Rarer train values are left out of the vocabularies.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the shuffle, the samples and a simulated log.")] = 0,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Shards a split; default one for 25,000 requests.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that write shards.")] = 2,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a malformed row.")] = False,
    check_leaks: Annotated[
        bool, typer.Option("--check-leaks", help="Look for information from after the exposure.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace data prepared earlier.")
    ] = False,
    num_users: Annotated[int | None, typer.Option(help="Of a simulated log.")] = None,
    num_items: Annotated[int | None, typer.Option(help="Of a simulated log.")] = None,
    num_days: Annotated[int | None, typer.Option(help="Of a simulated log.")] = None,
) -> None:
    """Turns a feedback log into sharded TFRecords of requests, with schema and manifest."""
    given = {"num_users": num_users, "num_items": num_items, "num_days": num_days}
    console = Console()
    try:
        check_output(output, overwrite)
        with _progress(console) as progress:
            stages = _Stages(progress)
            described = Schema.from_json(schema) if schema else None
            stages("reading", 0, 1)
            log = load_source(
                source,
                input,
                strict=strict,
                multi_valued=_multi_valued(described),
                **_simulation(source, given, seed),
            )
            stages("reading", 1, 1)
            manifest = prepare(
                log,
                output,
                history_length=history_length,
                num_samples=samples,
                num_sessions=sessions,
                session_gap_minutes=session_gap,
                histories=[name.strip() for name in histories.split(",")],
                lag_seconds=lag,
                schema=described,
                fractions=_fractions(split),
                min_count=min_count,
                seed=seed,
                shards=shards,
                workers=workers,
                check_leaks=check_leaks,
                overwrite=overwrite,
                progress=stages,
            )
    except (ValueError, OSError) as error:
        fail(error)
    _summarise(console, manifest, stages.seconds)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--split: expected three shares such as 0.8,0.1,0.1, got {text!r}."
        ) from error
    return train, validation, test


def _simulation(source: str, given: dict[str, int | None], seed: int) -> dict[str, Any]:
    options = {name: value for name, value in given.items() if value is not None}
    if source == "simulated":
        return {**options, "seed": seed}
    if options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise ValueError(f"{names}: only for `--source simulated`, got `--source {source}`.")
    return {}


def _multi_valued(schema: Schema | None) -> list[str] | None:
    """Returns which columns a given schema says are multi-valued."""
    if schema is None:
        return None
    return [feature.name for feature in schema.features if feature.max_values > 1]


def _summarise(console: Console, manifest: Manifest, seconds: dict[str, float]) -> None:
    report = manifest.report
    for reason, count in report.malformed.items():
        console.print(f"[yellow]{count:,} rows dropped[/yellow]: {escape(reason)}")
    for example in report.examples:
        console.print(f"  {escape(example)}", soft_wrap=True)
    table = Table(title=f"{manifest.source} in {manifest.directory}")
    for heading in ("", *manifest.splits):
        table.add_column(heading, justify="right" if heading else "left")
    splits = manifest.splits.values()
    table.add_row("requests", *(f"{split.requests:,}" for split in splits))
    table.add_row("candidates", *(f"{split.candidates:,}" for split in splits))
    for kind in ("click", "unclick", "like", "dislike"):
        table.add_row(kind, *(f"{split.feedback[kind]:,}" for split in splits))
    table.add_row("shards", *(f"{len(split.shards)}" for split in splits))
    console.print(table)
    requests = sum(split.requests for split in splits)
    kept = sum(split.candidates for split in splits)
    malformed = sum(report.malformed.values())
    peak = _peak_megabytes()
    console.print(
        f"rows read {report.rows:,}, malformed {malformed:,}, duplicates dropped "
        f"{report.duplicates:,}, kept {kept:,}\n"
        f"histories {_rate(kept, seconds, 'histories')} rows/s, "
        f"writing {_rate(requests, seconds, 'writing')} records/s, "
        f"{sum(seconds.values()):.1f} s in all, peak memory {peak:,.0f} MB",
        soft_wrap=True,
    )


def _rate(count: int, seconds: dict[str, float], stage: str) -> str:
    return f"{count / max(seconds[stage], 1e-6):,.0f}"


def _peak_megabytes() -> float:
    """Returns the peak resident memory of this process, and of its largest worker where larger."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(w).ru_maxrss for w in who)
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    typer.run(main)
