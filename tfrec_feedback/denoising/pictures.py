"""Pictures of adaptive denoising training: numpy arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, PercentFormatter

from tfrec_feedback.denoising import analysis
from tfrec_feedback.denoising.analysis import GroupCounts, Quality, quality
from tfrec_feedback.denoising.grid import Point, Sensitivity
from tfrec_feedback.denoising.record import DenoisingRecord
from tfrec_feedback.pictures import NothingToDrawError

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_TRUE, _FALSE, _RANDOM, _RATE = "#0072B2", "#D55E00", "#555555", "#E69F00"
_LINES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_FEW = 40
"""Windows up to which each is marked."""


def losses(record: DenoisingRecord | None) -> Figure:
    """Draws the loss of true and false positives over training.

    The paper finds that false positives are learned later. It need not be so: clickbait that is
    popular is learned first.

    Raises:
        NothingToDrawError: when nothing was recorded, or which clicks are false is not known.
    """
    record = _recorded(record)
    found = _knowing(record)
    figure, axes = _panels(1, "How well true and false positives are learned")
    curves = {"false positives": found.loss_false, "true positives": found.loss_true}
    _curves(axes[0], record.series["step"], curves, (_FALSE, _TRUE))
    axes[0].set_ylabel("cross entropy of clicks, mean (nats)")
    return figure


def drops(record: DenoisingRecord | None) -> Figure:
    """Draws how many clicks a truncated loss drops, and how many of them are false, over training.

    Raises:
        NothingToDrawError: when nothing was recorded, or the loss drops nothing.
    """
    record = _dropping(record)
    found, step = quality(record.series), record.series["step"]
    known = bool(np.isfinite(found.random_precision).any())
    figure, axes = _panels(2 if known else 1, "What truncation drops, and what chance would drop")
    curves = {"at random: share of all clicks dropped": found.random_recall}
    colours, dashes = [_RANDOM, _RATE], ["--", ":"]
    if known:
        curves = {"truncated loss": found.recall, **curves}
        colours, dashes = [_TRUE, *colours], ["-", *dashes]
        axes[1].set_title("Precision: share of the dropped clicks that is false", fontsize=11)
        curves_of = {"truncated loss": found.precision}
        curves_of["at random: share of all clicks that is false"] = found.random_precision
        _curves(axes[1], step, curves_of, (_TRUE, _RANDOM), ("-", "--"))
    curves["drop rate of the schedule"] = found.drop_rate
    title = "Recall: share of the false clicks that is dropped" if known else "Share dropped"
    axes[0].set_title(title, fontsize=11)
    _curves(axes[0], step, curves, colours, dashes)
    for ax in axes:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def weights(record: DenoisingRecord | None) -> Figure:
    """Draws what a reweighted loss multiplies true and false positives by, over training.

    Raises:
        NothingToDrawError: when nothing was recorded, the loss weighs nothing, or which clicks are
            false is not known.
    """
    record = _recorded(record)
    if record.loss != "rce":
        raise NothingToDrawError(f"the loss ({record.loss}) weighs all clicks alike")
    found = _knowing(record)
    figure, axes = _panels(1, "What the loss of true and false positives is multiplied by")
    curves = {"true positives": found.weight_true, "false positives": found.weight_false}
    _curves(axes[0], record.series["step"], curves, (_TRUE, _FALSE), from_zero=False)
    axes[0].set_ylabel("weight of a click in the loss, mean")
    return figure


def groups(record: DenoisingRecord | None) -> Figure:
    """Draws the share of clicks dropped by activity of users and popularity of items.

    Groups that lose too many, see `eaten_groups`, are in another colour.

    Raises:
        NothingToDrawError: when nothing was recorded, the loss drops nothing, or the model knows
            neither users nor items by id.
    """
    record = _dropping(record)
    if not record.groups:
        raise NothingToDrawError("the model knows neither users nor items by id")
    epochs = len(next(iter(record.groups.values())).positives)
    title = f"Whose clicks were dropped in the last epoch ({epochs})"
    figure, axes = _panels(len(record.groups), title)
    for ax, (kind, counts) in zip(axes, record.groups.items(), strict=True):
        last = GroupCounts(**{name: values[-1] for name, values in vars(counts).items()})
        _group_bars(ax, kind, last)
    return figure


def _group_bars(ax: Axes, kind: str, counts: GroupCounts) -> None:
    shares = counts.share()
    eaten = {group.name for group in analysis.eaten_groups({kind: counts})}
    names = [analysis.group_name(kind, group) for group in range(len(shares))]
    colours = [_FALSE if name in eaten else _TRUE for name in names]
    bars = ax.bar(range(len(shares)), np.nan_to_num(shares), color=colours, width=0.7)
    # The line may cross them.
    halo = [withStroke(linewidth=4, foreground="white")]
    notes = [f"{share:.1%}" if np.isfinite(share) else "nobody" for share in shares]
    ax.bar_label(bars, notes, padding=3, path_effects=halo, zorder=5)
    overall = counts.dropped.sum() / max(counts.positives.sum(), 1)
    label = f"all clicks: {overall:.1%}"
    ax.axhline(overall, color=_RANDOM, linestyle="--", linewidth=1.2, label=label)
    of_group = zip(names, counts.rows.tolist(), counts.largest.tolist(), strict=True)
    notes = [f"{name}\n{rows:,} {kind}\nup to {most:,} clicks" for name, rows, most in of_group]
    ax.set_xticks(range(len(shares)), notes, fontsize=8.5)
    ax.set_title(f"{kind}, in groups of equally many clicks", fontsize=11)
    ax.set_ylabel("share of the group's clicks dropped")
    ax.set_ylim(0, max(1.25 * np.nanmax(shares, initial=0.0), 0.01))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(frameon=False, loc="upper right")


def sensitivity(found: Sensitivity) -> Figure:
    """Draws a metric by drop rate and steps, and by beta: the paper's figure 8.

    Raises:
        NothingToDrawError: without a truncated or reweighted run.
    """
    if not found.truncated and not found.reweighted:
        raise NothingToDrawError("the grid holds no evaluated run with loss.name=tce or rce")
    count = bool(found.truncated) + bool(found.reweighted)
    figure, axes = _panels(count, "How much the options of denoising matter")
    panels = iter(axes)
    if found.truncated:
        _by_steps(next(panels), found.truncated)
    if found.reweighted:
        ax = next(panels)
        ax.set_title("reweighted (rce)", fontsize=11)
        _points(ax, found.reweighted, "rce", _TRUE)
        ax.set_xlabel("exponent of the confidence (loss.beta)")
    for ax in axes:
        if found.baseline:
            mean = float(np.mean([point.value for point in found.baseline]))
            label = f"ce: {mean:.4f}"
            ax.axhline(mean, color=_RANDOM, linestyle="--", linewidth=1.2, label=label)
        ax.margins(0.08)
        ax.legend(frameon=False, fontsize=9)
        ax.set_ylabel(f"test {found.metric}, mean over seeds")
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _by_steps(ax: Axes, values: Mapping[tuple[float, int], Sequence[Point]]) -> None:
    ax.set_title("truncated (tce)", fontsize=11)
    rates = sorted({rate for rate, _ in values})
    for i, rate in enumerate(rates):
        row = {float(n): points for (r, n), points in values.items() if r == rate}
        # Intervals stand beside each other.
        shift = 1.03 ** (i - (len(rates) - 1) / 2)
        _points(ax, row, f"max_rate {rate:g}", _LINES[i % len(_LINES)], shift)
    ax.set_xscale("log")
    steps = sorted({n for _, n in values})
    ax.set_xticks(steps, [f"{n:,}" for n in steps])
    ax.minorticks_off()
    ax.set_xlabel("steps until the drop rate is reached (loss.num_steps)")


def _points(
    ax: Axes, values: Mapping[float, Sequence[Point]], label: str, colour: str, factor: float = 1.0
) -> None:
    """Draws the means of points by x, with the means of their intervals."""
    x = np.array(sorted(values))
    value, low, high = np.array([np.mean(values[at], axis=0) for at in x]).T
    spread = [value - low, high - value]
    style: dict[str, Any] = {"marker": "o", "capsize": 3, "linewidth": 1.8, "elinewidth": 1.0}
    ax.errorbar(x * factor, value, spread, color=colour, label=label, **style)


def _recorded(record: DenoisingRecord | None) -> DenoisingRecord:
    if record is None:
        raise NothingToDrawError(
            "the run kept no diagnostics of denoising (loss.name=tce or rce, or data that know "
            "which clicks were mistakes; train.diagnostics_steps above 0)"
        )
    return record


def _dropping(record: DenoisingRecord | None) -> DenoisingRecord:
    record = _recorded(record)
    if record.loss != "tce":
        raise NothingToDrawError(f"the loss ({record.loss}) drops no clicks; loss.name=tce does")
    return record


def _knowing(record: DenoisingRecord) -> Quality:
    found = quality(record.series)
    if not np.isfinite(found.loss_false).any():
        raise NothingToDrawError("the data do not say which clicks were mistakes")
    return found


def _panels(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.0 * columns, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=13)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def _curves(
    ax: Axes,
    step: np.ndarray,
    curves: Mapping[str, np.ndarray],
    colours: Sequence[str],
    dashes: Sequence[str] | None = None,
    from_zero: bool = True,
) -> None:
    marker = "o" if len(step) <= _FEW else None
    dashes = dashes or ["-"] * len(curves)
    for (name, values), colour, dash in zip(curves.items(), colours, dashes, strict=True):
        style: dict[str, Any] = {"linestyle": dash, "marker": marker, "markersize": 3.5}
        ax.plot(step, values, label=name, color=colour, **style)
    ax.set_xlabel("training step")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if from_zero:
        ax.set_ylim(bottom=0)
    # The legend stands above the curves, which may cross the whole panel.
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + (high - low) * (0.08 + 0.08 * len(curves)))
    ax.legend(frameon=False, fontsize=9, loc="upper left")
