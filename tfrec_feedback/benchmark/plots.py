"""The pictures of a benchmark's report: plain numbers in, matplotlib figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BEST, OTHER, FAINT = "#D55E00", "#0072B2", "#C8C8C8"
_COLUMNS = 4
_GAP = 4.0
"""Pixels between labels of a scatter plot."""


def auc_intervals(
    labels: Sequence[str],
    values: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    *,
    xlabel: str = "CTR AUC",
) -> Figure:
    """Draws a dot with its interval for every row, the first on top and marked as the best.

    Args:
        labels: K rows, the best first.
        values: K dots.
        lows: K lower ends; NaN for none.
        highs: K upper ends.
        xlabel: name of the values.
    """
    figure = Figure(figsize=(8.0, 1.2 + 0.32 * len(labels)), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(labels))
    colours = [BEST if i == 0 else OTHER for i in range(len(labels))]
    ax.axvline(values[0], color=BEST, linewidth=0.8, linestyle=":", zorder=0)
    ax.hlines(places, lows, highs, color=colours, linewidth=2.2, alpha=0.55)
    ax.scatter(values, places, color=colours, s=34, zorder=3)
    for place, value in enumerate(values):
        ax.text(1.02, place, f"{value:.4f}", transform=ax.get_yaxis_transform(), va="center")
    ax.set_yticks(places, list(labels))
    ax.get_yticklabels()[0].set_fontweight("bold")
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    _plain(ax, "x")
    return figure


def auc_against_latency(
    labels: Sequence[str], latencies: Sequence[float], values: Sequence[float], best: str
) -> Figure:
    """Draws AUC over the logarithm of latency; labels stand where they hide the least.

    Args:
        labels: K rows.
        latencies: K milliseconds, greater than 0.
        values: K AUCs.
        best: label to mark.
    """
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    ax = figure.subplots()
    colours = [BEST if label == best else OTHER for label in labels]
    ax.scatter(latencies, values, color=colours, s=38, zorder=3)
    ax.set_xscale("log")
    ax.margins(0.12)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    left, right = ax.get_xlim()
    decades = math.log10(right / left)
    named = "123456789" if decades < 0.9 else "235" if decades < 2 else ""
    ax.xaxis.set_minor_formatter(
        FuncFormatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in named else "")
    )
    ax.set_xlabel("milliseconds to score a request of 100 candidates (log scale)")
    ax.set_ylabel("CTR AUC")
    _plain(ax, "both")
    _place_labels(figure, ax, labels, np.column_stack([latencies, values]), best)
    return figure


def learning_curves(curves: Mapping[str, Sequence[float]], best: str) -> Figure:
    """Draws one panel a row: its validation AUC by epoch, before those of all others in grey.

    Args:
        curves: values of the epochs 1, 2, ... by label; NaN leaves a gap.
        best: label to mark.
    """
    figure, panels = _panels(list(curves), "epoch", "validation CTR AUC")
    last = max(len(values) for values in curves.values())
    for label, ax in panels.items():
        for other, values in curves.items():
            if other != label:
                ax.plot(np.arange(len(values)) + 1, values, color=FAINT, linewidth=0.8)
        own, colour = curves[label], BEST if label == best else OTHER
        ax.plot(np.arange(len(own)) + 1, own, color=colour, linewidth=2, marker="o", markersize=3)
        ax.set_xlim(0.7, last + 0.3)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        _plain(ax, "y")
    return figure


def calibration(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    errors: Mapping[str, float],
    best: str,
) -> Figure:
    """Draws one panel a row: observed over predicted click rate of its bins, and the diagonal.

    Args:
        curves: predicted and observed rate of every bin by label.
        errors: expected calibration error by label.
        best: label to mark.
    """
    figure, panels = _panels(list(curves), "predicted", "observed", square=True)
    top = max(max([*predicted, *observed]) for predicted, observed in curves.values()) * 1.06
    for label, ax in panels.items():
        colour = BEST if label == best else OTHER
        ax.plot([0, top], [0, top], color="#888888", linewidth=0.8, linestyle="--")
        ax.plot(*curves[label], color=colour, linewidth=1.5, marker="o", markersize=3.5)
        ax.text(0.04, 0.9, f"error {errors[label]:.3f}", transform=ax.transAxes, fontsize=8.5)
        ax.set(xlim=(0, top), ylim=(0, top))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        _plain(ax, "both")
    return figure


def _panels(
    labels: Sequence[str], xlabel: str, ylabel: str, square: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """Returns a grid of panels with shared axes, one a label, titled by it."""
    columns = min(_COLUMNS, len(labels))
    rows = -(-len(labels) // columns)
    height = 2.3 if square else 1.9
    size = (max(2.3 * columns, 4.0) + 0.3, height * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for ax in axes[len(labels) :]:
        ax.set_visible(False)
    for place, ax in enumerate(axes[: len(labels)]):
        ax.set_title(_folded(labels[place]), fontsize=9.5, fontweight="bold", loc="left")
        ax.tick_params(labelsize=8, labelbottom=place + columns >= len(labels))
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return figure, dict(zip(labels, axes, strict=False))


def _folded(label: str) -> str:
    """Breaks the label of a sweep at its commas, so that it fits over a panel."""
    return label.replace(", ", ",\n") if len(label) > 22 else label


def _plain(ax: Axes, grid: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="#E6E6E6", linewidth=0.7)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def _place_labels(
    figure: Figure, ax: Axes, labels: Sequence[str], points: np.ndarray, best: str
) -> None:
    """Puts each label beside its point, where it covers no point or label, or the least of them."""
    figure.draw_without_rendering()  # Settles the layout, which pixels depend on.
    figure.set_layout_engine("none")
    pixels = ax.transData.transform(points)
    reach = 7 * figure.dpi / 72
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in pixels]
    for i in np.argsort(-pixels[:, 1]):
        weight = "bold" if labels[i] == best else "normal"
        text = ax.annotate(
            labels[i], points[i], fontsize=9, fontweight=weight, annotation_clip=False
        )
        extent = text.get_window_extent()
        boxes = [_box(pixels[i], where, reach, extent.width, extent.height) for where in _AROUND]
        window = ax.get_window_extent()
        frame = (window.x0, window.y0, window.x1, window.y1)
        costs = [_hidden(box, taken) + _outside(box, frame) for box in boxes]
        box = boxes[int(np.argmin(costs))]
        taken.append(box)
        text.set_position(tuple(ax.transData.inverted().transform(box[:2])))
        text.set_verticalalignment("bottom")
        if np.hypot(*(np.clip(pixels[i], box[:2], box[2:]) - pixels[i])) > 1.5 * reach:
            edge = ax.transData.inverted().transform(np.clip(pixels[i], box[:2], box[2:]))
            ax.plot(*np.transpose([points[i], edge]), color="#999999", linewidth=0.7, zorder=1)


_Box = tuple[float, float, float, float]

_AROUND = [
    (distance * np.cos(angle), distance * np.sin(angle))
    for distance in (1.0, 2.0, 3.5, 5.0)
    for angle in np.deg2rad([0, 90, 180, 270, 45, 135, 315, 225])
]
"""Where a label may stand from its point, the best place first."""


def _box(point: np.ndarray, where: tuple[float, float], reach: float, w: float, h: float) -> _Box:
    """Returns the rectangle of a label that lies off its point in direction `where`."""
    x = point[0] + reach * where[0] - w * (1 - np.clip(where[0] * 2, -1, 1)) / 2
    y = point[1] + reach * where[1] - h * (1 - np.clip(where[1] * 2, -1, 1)) / 2
    return float(x), float(y), float(x + w), float(y + h)


def _hidden(box: _Box, taken: Sequence[_Box]) -> float:
    """Returns the area that a box shares with those taken, each widened by a gap."""
    others = np.array(taken)
    sides = np.minimum(box[2:], others[:, 2:] + _GAP) - np.maximum(box[:2], others[:, :2] - _GAP)
    return float(np.prod(np.maximum(sides, 0.0), axis=1).sum())


def _outside(box: _Box, frame: _Box) -> float:
    """Returns the area of a box beyond the axes, so that no label is cut off."""
    inside = np.maximum(np.minimum(box[2:], frame[2:]) - np.maximum(box[:2], frame[:2]), 0.0)
    return (box[2] - box[0]) * (box[3] - box[1]) - float(np.prod(inside))
