"""What the commands share: errors without traceback, progress, tables."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from tfrec_feedback.benchmark.comparison import Comparison, Row
    from tfrec_feedback.benchmark.measured import Difference, Spread


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


def ranking_table(report: dict[str, Any], title: str) -> Table:
    """Lays out `tfrec_feedback.full_ranking.ranking_report`: a row a metric.

    Args:
        report: the report.
        title: heading of the table.
    """
    table = Table(title=title)
    table.add_column("metric", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True)
    table.add_column(f"{report['confidence']:.0%} interval", justify="center", no_wrap=True)
    groups = report["groups"]
    for group in groups:
        table.add_column(f"≤ {group['largest_activity']:,}", justify="right", no_wrap=True)
    for name, values in report["metrics"].items():
        metric, k = name.split("_")
        label = f"{'NDCG' if metric == 'ndcg' else 'Recall'}@{k}"
        means = [_number(group[name]) for group in groups]
        table.add_row(label, _number(values["value"]), _range(values), *means)
    sizes = " + ".join(f"{group['users']:,}" for group in groups)
    table.caption = (
        f"{report['users']:,} users with items to find; {sizes} of them by their number of train "
        "interactions, in groups of equally many interactions."
    )
    return table


def ranking_comparison_table(metrics: dict[str, Any], title: str) -> Table:
    """Lays out `tfrec_feedback.full_ranking.compare_rankings`: a row a metric."""
    table = Table(title=title)
    table.add_column("metric")
    for heading in ("difference", "95% interval", "p (users, paired)"):
        table.add_column(heading, justify="right")
    for name, values in metrics.items():
        table.add_row(name, _signed(values["value"]), _range(values), _number(values["p_value"]))
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


def benchmark_table(comparison: Comparison, title: str) -> Table:
    """Lays out a benchmark: a row a model, the best first and bold.

    Args:
        comparison: from `tfrec_feedback.benchmark.comparison.compare_cells`.
        title: heading of the table.
    """
    rows = comparison.ranked()
    table = Table(title=title)
    table.add_column("model")
    columns: dict[str, Callable[[Row], str]] = {
        "CTR AUC": lambda row: _tie(comparison, row.auc_difference) + _spread(row.ctr_auc),
        "p": lambda row: _corrected(row.auc_difference),
        "RelaImpr": lambda row: _formatted(row.rela_impr, "+.2f", "%"),
        "GAUC": lambda row: _tie(comparison, row.gauc_difference) + _spread(row.gauc),
        "p (GAUC)": lambda row: _corrected(row.gauc_difference),
        "dislike AUC": lambda row: _spread(row.dislike_auc),
        "weights": lambda row: f"{row.parameters:,}",
        "samples/s": lambda row: _formatted(row.samples_per_second, ",.0f"),
        "ms": lambda row: _formatted(row.latency_ms, ".2f"),
    }
    texts = {name: [text(row) for row in rows] for name, text in columns.items()}
    shown = {name: column for name, column in texts.items() if name == "p" or {*column} != {"-"}}
    for name in shown:
        table.add_column(name, justify="right")
    for i, row in enumerate(rows):
        style = "bold" if row.label == comparison.best else ""
        table.add_row(escape(row.label), *(column[i] for column in shown.values()), style=style)
    against = "" if comparison.base is None else f" RelaImpr against {comparison.base}."
    table.caption = (
        f"{len(rows[0].seeds)} seed{'s' if len(rows[0].seeds) > 1 else ''}, "
        f"{comparison.exposures:,} exposures, "
        f"{comparison.users:,} users. Bold: best CTR AUC. ≈: not significantly different from it, "
        f"p >= {1 - comparison.confidence:.2g} after Holm's correction.{against}"
    )
    return table


def _tie(comparison: Comparison, difference: Difference | None) -> str:
    return "≈ " if comparison.is_tied(difference) else ""


def _corrected(difference: Difference | None) -> str:
    if difference is None or math.isnan(difference.corrected):
        return "-"
    return "<0.001" if difference.corrected < 0.001 else f"{difference.corrected:.3f}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return _formatted(spread.mean, ".4f") + _formatted(spread.deviation, ".4f", before=" ± ")


def _formatted(value: float | None, form: str, after: str = "", before: str = "") -> str:
    if value is None or math.isnan(value):
        return "" if before else "-"
    return f"{before}{value:{form}}{after}"
