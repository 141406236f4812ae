"""What the commands share: errors without traceback, progress, tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def fail(error: BaseException) -> NoReturn:
    """Prints an error that the user can act on, and ends the command with exit code 1."""
    Console(stderr=True).print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)
    raise typer.Exit(1) from error


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Turns the errors that bad input causes into `fail`; bugs keep their traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)


def progress_bar(console: Console) -> Progress:
    """Returns a progress display with a free text field `status`."""
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
    )


def metrics_table(report: dict[str, Any], title: str) -> Table:
    """Lays out `tfrec_feedback.evaluation.evaluate`'s report: a row a task and metric.

    Args:
        report: the report.
        title: heading of the table.
    """
    table = Table(title=title)
    table.add_column("task")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column(f"{report['confidence']:.0%} interval", justify="center")
    for task, values in report["tasks"].items():
        for name, label in (
            ("auc", "AUC"),
            ("gauc", "GAUC"),
            ("auc_against_clicks", "AUC against clicks"),
        ):
            if name in values:
                table.add_row(task, label, _number(values[name]["value"]), _range(values[name]))
        for name, label in (
            ("gauc_unweighted", "GAUC, users equal"),
            ("log_loss", "log loss"),
            ("calibration_error", "calibration error"),
        ):
            table.add_row(task, label, _number(values[name]), "")
        table.add_section()
    table.caption = (
        f"{report['exposures']:,} exposures, {report['users']:,} users. GAUC leaves out users "
        "with one class: "
        + ", ".join(f"{t} {v['one_class_users']:,}" for t, v in report["tasks"].items())
        + "."
    )
    return table


def comparison_table(report: dict[str, Any], title: str) -> Table:
    """Lays out `tfrec_feedback.evaluation.compare`'s report: a row a task."""
    table = Table(title=title)
    table.add_column("task")
    for heading in ("AUC difference", "p (DeLong)", "GAUC difference", "95% interval"):
        table.add_column(heading, justify="right")
    for task, values in report.items():
        grouped = values["gauc_difference"]
        difference, p = _signed(values["auc_difference"]), _number(values["p_value"])
        table.add_row(task, difference, p, _signed(grouped["value"]), _range(grouped))
    return table


def slices_table(report: dict[str, Any]) -> Table:
    """Lays out AUC by kind of request."""
    table = Table(title="AUC by kind of request")
    tasks = list(report["tasks"])
    for heading in ("slice", "", "exposures", *tasks):
        table.add_column(heading, justify="left" if heading in ("slice", "") else "right")
    for name, parts in report["slices"].items():
        for part, values in parts.items():
            scores = [_number(values[f"{task}_auc"]) for task in tasks]
            table.add_row(name, part, f"{values['exposures']:,}", *scores)
        table.add_section()
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _range(interval: dict[str, float | None]) -> str:
    low, high = interval["low"], interval["high"]
    return "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
