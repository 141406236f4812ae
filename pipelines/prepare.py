"""Prepares data for training: `python -m pipelines.prepare --help`.

A feedback log becomes sharded TFRecords of requests; interactions become Parquet files.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from pipelines.console import reported_errors
from pipelines.prepare_summary import summarise_interactions, summarise_requests
from tfrec_feedback.data.folder import check_output
from tfrec_feedback.data.history import FEEDBACKS, KINDS
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.sources import (
    INTERACTION_SOURCES,
    SOURCES,
    load_interaction_source,
    load_source,
)
from tfrec_feedback.schema import Schema

_ALWAYS = ("source", "output", "overwrite")
_OF_INTERACTIONS = {
    "adt-ratings": ("input", "clean_rating", "strict"),
    "simulated-interactions": ("num_users", "num_items", "seed"),
}
"""The options that sources of interactions take, beside `_ALWAYS`."""
_OF_SCHEMAS = ("history_length", "samples", "sessions", "histories")
"""The options that a schema decides."""


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
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option(
            help=f"Kind of log: {', '.join(SOURCES)}; or of interactions, for collaborative "
            f"filtering: {', '.join(INTERACTION_SOURCES)}."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    input: Annotated[
        Path | None, typer.Option(help="File or folder of the data (not for simulated ones).")
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
    clean_rating: Annotated[
        float | None,
        typer.Option(
            help="For `adt-ratings`: lowest value that is no false positive; default 3 for "
            "ratings, 1 for flags."
        ),
    ] = None,
    num_users: Annotated[int | None, typer.Option(help="Of simulated data.")] = None,
    num_items: Annotated[int | None, typer.Option(help="Of simulated data.")] = None,
    num_days: Annotated[int | None, typer.Option(help="Of a simulated log.")] = None,
) -> None:
    """Prepares a feedback log (TFRecords of requests) or interactions (Parquet) for training."""
    simulated = {"num_users": num_users, "num_items": num_items, "num_days": num_days}
    console = Console()
    with reported_errors():
        check_output(output, overwrite, [path for path in (input, schema) if path])
        if source in INTERACTION_SOURCES:
            _check_options(ctx, source)
            started = time.perf_counter()
            found = load_interaction_source(
                source,
                input,
                strict=strict,
                clean_rating=clean_rating,
                **_simulation(source, simulated, seed),
            )
            manifest = prepare_interactions(found, output, overwrite)
            summarise_interactions(console, manifest, time.perf_counter() - started)
            _note_validation(console, manifest)
            return
        if clean_rating is not None:
            raise ValueError(f"--clean-rating: only for `adt-ratings`, got `--source {source}`.")
        _check_schema_options(ctx, schema)
        with _progress(console) as progress:
            stages = _Stages(progress)
            described = Schema.from_json(schema) if schema else None
            stages("reading", 0, 1)
            log = load_source(
                source,
                input,
                strict=strict,
                multi_valued=_multi_valued(described),
                **_simulation(source, simulated, seed),
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
    summarise_requests(console, manifest, stages.seconds)
    _note_validation(console, manifest)


def _note_validation(console: Console, manifest: Manifest) -> None:
    if manifest.split("validation").requests == 0:
        console.print(
            "Note: the validation split is empty, and training needs one: change --split, or the "
            "splits of the data themselves.",
            soft_wrap=True,
        )


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
    if source.startswith("simulated"):
        return {**options, "seed": seed}
    if options:
        raise ValueError(f"{_flags(options)}: only for simulated sources, got `--source {source}`.")
    return {}


def _check_options(ctx: typer.Context, source: str) -> None:
    """Raises for options that only a log has a use for, or a source of another kind."""
    usable = (*_ALWAYS, *_OF_INTERACTIONS[source])
    wrong = [name for name in _given(ctx) if name not in usable]
    if wrong:
        raise ValueError(
            f"{_flags(wrong)}: not for `--source {source}`, which takes {_flags(usable)}."
        )


def _check_schema_options(ctx: typer.Context, schema: Path | None) -> None:
    """Raises for options that a given schema decides."""
    wrong = [name for name in _given(ctx) if name in _OF_SCHEMAS]
    if schema is not None and wrong:
        raise ValueError(
            f"{_flags(wrong)}: not with `--schema`, which decides them. Leave them out, or change "
            f"the histories of {schema}."
        )


def _given(ctx: typer.Context) -> list[str]:
    """Returns the names of the options that are not left at their default."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return [name for name, found in sources.items() if found and found.name != "DEFAULT"]


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _multi_valued(schema: Schema | None) -> list[str] | None:
    """Returns which columns a given schema says are multi-valued."""
    if schema is None:
        return None
    return [feature.name for feature in schema.features if feature.max_values > 1]


if __name__ == "__main__":
    typer.run(main)
