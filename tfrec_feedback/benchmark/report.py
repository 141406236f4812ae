"""The report of a benchmark: one HTML file with tables and pictures inside it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tfrec_feedback import metrics
from tfrec_feedback.benchmark import plots
from tfrec_feedback.benchmark.cells import Cell
from tfrec_feedback.benchmark.comparison import Comparison, Row
from tfrec_feedback.benchmark.measured import Difference, Spread
from tfrec_feedback.data.manifest import write_atomically
from tfrec_feedback.metrics.ranks import mid_ranks

_TEMPLATE = "report.html.j2"
_BINS = 10
_VALIDATION = "ctr_auc"
_NOTHING = "–"


def write_report(
    comparison: Comparison,
    cells: Sequence[Cell],
    path: str | Path,
    *,
    title: str,
    notes: Sequence[str] = (),
) -> None:
    """Writes the report as one file that needs neither network nor JavaScript.

    Args:
        comparison: of the cells.
        cells: those compared, for learning curves and calibration.
        path: of the file; replaced as a whole.
        title: heading of the report.
        notes: what the reader should know besides, a sentence each.

    Example:
        >>> write_report(comparison, cells, "report.html", title="Simulated log")  # doctest: +SKIP
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfrec_feedback.benchmark"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(_TEMPLATE).render(
        title=title,
        notes=list(notes),
        comparison=comparison,
        seeds=len(comparison.rows[0].seeds),
        percent=f"{comparison.confidence:.0%}",
        level=f"{1 - comparison.confidence:.2g}",
        has_dislike=any(row.dislike_auc is not None for row in comparison.rows),
        has_timing=any(row.latency_ms is not None for row in comparison.rows),
        rows=[_cells_of(row, comparison) for row in comparison.ranked()],
        settings=[(row.label, _settings(row)) for row in comparison.ranked()],
        figures=list(_figures(comparison, cells)),
    )
    write_atomically(Path(path), html.encode("utf-8"))


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, num_bins: int = _BINS
) -> tuple[list[float], list[float]]:
    """Returns mean prediction and observed rate in bins of equal numbers of rows.

    Rows of equal probability share a bin, so fewer bins come out where many do.

    Args:
        labels: `[n]` zeros and ones.
        probabilities: `[n]` in [0, 1].
        num_bins: number of bins.

    Example:
        >>> reliability(np.array([0, 1, 1, 1]), np.array([0.25, 0.25, 0.5, 1.0]), num_bins=2)
        ([0.25, 0.75], [0.5, 1.0])
    """
    ranks = mid_ranks(probabilities.astype(np.float64))
    bins = ((ranks - 0.5) * num_bins / len(ranks)).astype(np.int64)
    counts = np.bincount(bins)
    filled = counts > 0
    means = [np.bincount(bins, x)[filled] / counts[filled] for x in (probabilities, labels)]
    return means[0].tolist(), means[1].tolist()


def learning_means(labels: Sequence[str], cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Returns validation CTR AUC by epoch, mean over the seeds that trained that long.

    Args:
        labels: of the rows, in the order wanted; those that have no such metric are left out.
        cells: of these rows.
    """
    curves = {}
    for label in labels:
        runs = [cell.history for cell in cells if cell.label == label]
        curve = []
        for epoch in range(max(map(len, runs))):
            found = [run[epoch].get(_VALIDATION, math.nan) for run in runs if epoch < len(run)]
            finite = [value for value in found if math.isfinite(value)]
            curve.append(float(np.mean(finite)) if finite else math.nan)
        if any(map(math.isfinite, curve)):
            curves[label] = curve
    return curves


def _cells_of(row: Row, comparison: Comparison) -> dict[str, Any]:
    """Returns a row of the table as texts."""
    return {
        "label": row.label,
        "best": row.label == comparison.best,
        "auc_tied": comparison.is_tied(row.auc_difference),
        "gauc_tied": comparison.is_tied(row.gauc_difference),
        "auc": _spread(row.ctr_auc),
        "auc_interval": _ends(row.ctr_auc_interval.low, row.ctr_auc_interval.high),
        "gauc": _spread(row.gauc),
        "gauc_interval": _ends(row.gauc_interval.low, row.gauc_interval.high),
        "dislike": _spread(row.dislike_auc),
        "rela_impr": _number(row.rela_impr, "+.2f"),
        "auc_difference": _difference(row.auc_difference),
        "gauc_difference": _difference(row.gauc_difference),
        "parameters": f"{row.parameters:,}",
        "samples": _number(row.samples_per_second, ",.0f"),
        "latency": _number(row.latency_ms, ".2f"),
    }


def _figures(comparison: Comparison, cells: Sequence[Cell]) -> Iterator[dict[str, str]]:
    rows, best = comparison.ranked(), comparison.best
    labels = [row.label for row in rows]
    values = [row.ctr_auc.mean for row in rows]
    lows = [row.ctr_auc_interval.low for row in rows]
    highs = [row.ctr_auc_interval.high for row in rows]
    percent = f"{comparison.confidence:.0%}"
    yield _figure(
        plots.auc_intervals(labels, values, lows, highs),
        "Test CTR AUC with intervals",
        f"Dots are means over seeds, bars DeLong's {percent} intervals averaged over seeds. Bars "
        "may overlap and models still differ: all scored the same exposures, so the paired tests "
        "of the table tell more than the bars.",
        f"Dot plot of CTR AUC; best {best} with {max(values):.4f}, last {labels[-1]} with "
        f"{min(values):.4f}.",
    )
    if any(row.latency_ms is not None for row in rows):
        yield _latency(rows, best)
    curves = learning_means(labels, cells)
    if any(len(curve) > 1 for curve in curves.values()):  # One epoch is no curve.
        yield _figure(
            plots.learning_curves(curves, best),
            "Learning curves",
            "Validation CTR AUC after each epoch, mean over the seeds that trained that long; the "
            "other models in grey. Each run was scored with the weights of its best epoch.",
            "Small line plots of validation CTR AUC by epoch, one for each of "
            f"{len(curves)} models.",
        )
    yield _calibration(labels, best, cells)


def _latency(rows: Sequence[Row], best: str) -> dict[str, str]:
    points = {r.label: (r.latency_ms, r.ctr_auc.mean) for r in rows if r.latency_ms is not None}
    latencies, values = zip(*points.values(), strict=True)
    return _figure(
        plots.auc_against_latency(list(points), latencies, values, best),
        "CTR AUC and latency",
        "Up is more accurate, left is faster. Latency is the median time to score one request of "
        "100 candidates.",
        f"Scatter plot of CTR AUC over latency, {min(latencies):.3g} to {max(latencies):.3g} "
        "milliseconds.",
    )


def _calibration(labels: Sequence[str], best: str, cells: Sequence[Cell]) -> dict[str, str]:
    first = min(cell.seed for cell in cells)
    curves, errors = {}, {}
    by_label = {cell.label: cell.predictions for cell in cells if cell.seed == first}
    for label in labels:
        clicks = by_label[label].labels["ctr"]
        logits = by_label[label].logits["ctr"].astype(np.float64)
        rates = 1.0 / (1.0 + np.exp(-np.clip(logits, -500, 500)))
        curves[label] = reliability(clicks, rates)
        errors[label] = metrics.expected_calibration_error(clicks, rates)
    return _figure(
        plots.calibration(curves, errors, best),
        "Calibration",
        f"Observed over predicted click rate of seed {first}, in {_BINS} bins of equally many test "
        "exposures; on the dashed line predictions are true as numbers. The error is their mean "
        "distance (expected calibration error, 15 bins). Losses that weight feedback move a model "
        "off the line and need not make it rank worse.",
        "Small reliability plots, one a model; errors from "
        f"{min(errors.values()):.3f} to {max(errors.values()):.3f}.",
    )


def _figure(figure: Figure, name: str, caption: str, alt: str) -> dict[str, str]:
    """Returns a picture as a data URI with its texts."""
    drawn = io.BytesIO()
    # Equal cells give an equal file: no date, and names that do not depend on chance.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(drawn.getvalue()).decode("ascii")
    source = f"data:image/svg+xml;base64,{encoded}"
    return {"name": name, "caption": caption, "alt": alt, "source": source}


def _settings(row: Row) -> str:
    texts = [
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in sorted(row.settings.items())
    ]
    return ", ".join(texts) or "as given for all models"


def _difference(difference: Difference | None) -> dict[str, str]:
    if difference is None or math.isnan(difference.value):
        return {"value": _NOTHING, "p": ""}
    p = difference.corrected
    text = "p undefined" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return {"value": f"{difference.value:+.4f}", "p": text}


def _spread(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return _NOTHING
    deviation = "" if math.isnan(spread.deviation) else f" ± {spread.deviation:.4f}"
    return f"{spread.mean:.4f}{deviation}"


def _ends(low: float, high: float) -> str:
    return _NOTHING if math.isnan(low) or math.isnan(high) else f"{low:.4f} to {high:.4f}"


def _number(value: float | None, form: str) -> str:
    return _NOTHING if value is None or math.isnan(value) else f"{value:{form}}"
