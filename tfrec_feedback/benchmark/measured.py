"""The rows of a benchmark, measured on the test rows they share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfrec_feedback import metrics
from tfrec_feedback.benchmark.cells import Cell
from tfrec_feedback.metrics.intervals import (
    Interval,
    bootstrap_means,
    bootstrap_p_values,
    placement_interval,
)
from tfrec_feedback.metrics.multiple import holm
from tfrec_feedback.metrics.placements import Placements, normal_p_value, placements

Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """Mean and standard deviation (ddof 1; NaN for one seed) over seeds."""

    mean: float
    deviation: float


class Difference(NamedTuple):
    """A row less the best one, with its two-sided p-value before and after Holm's correction."""

    value: float
    p_value: float
    corrected: float


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A row's cells, measured; S seeds, G users who clicked some exposures and not others.

    Attributes:
        cells: by seed.
        placements: of CTR, by seed.
        gaucs: `[S]` of CTR.
        user_aucs: `[G]` AUC within each user, mean over seeds.
        user_weights: `[G]` their exposures, the same for all rows.
    """

    cells: list[Cell]
    placements: list[Placements]
    gaucs: Floats
    user_aucs: Floats
    user_weights: Floats

    @property
    def auc(self) -> float:
        """CTR AUC, mean over seeds."""
        return float(np.mean([parts.auc for parts in self.placements]))

    @property
    def dislike_auc(self) -> Spread | None:
        """Over seeds; None where the model has no such task."""
        scored = [cell.predictions for cell in self.cells if "dislike" in cell.predictions.logits]
        if not scored:
            return None
        return spread([metrics.auc(p.labels["dislike"], p.logits["dislike"]) for p in scored])

    def auc_interval(self, confidence: float) -> Interval:
        """Returns DeLong's intervals of the CTR AUC, averaged over seeds."""
        found = [placement_interval(parts, confidence) for parts in self.placements]
        return Interval(*np.mean(found, axis=0).tolist())


def spread(values: Sequence[float] | Floats) -> Spread:
    """Returns mean and deviation over seeds.

    Example:
        >>> spread([1.0, 3.0, 5.0])
        Spread(mean=3.0, deviation=2.0)
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation)


def measure(cells: Sequence[Cell]) -> dict[str, Measured]:
    """Measures cells by label, in the order of appearance.

    Raises:
        ValueError: see `tfrec_feedback.benchmark.comparison.compare_cells`.
    """
    _check_exposures(cells)
    return {label: _measured(group) for label, group in _by_label(cells).items()}


def auc_differences(rows: Mapping[str, Measured], best: str) -> dict[str, Difference]:
    """Returns every other row's CTR AUC less that of row `best`, tested by DeLong."""
    pairs = {}
    for label, own in rows.items():
        if label != best:
            paired = zip(own.placements, rows[best].placements, strict=True)
            value, variance = np.mean([a.less(b) for a, b in paired], axis=0).tolist()
            pairs[label] = (value, normal_p_value(value, variance))
    return _corrected(pairs)


def gauc_bootstrap(
    rows: Mapping[str, Measured], best: str, confidence: float, num_resamples: int
) -> tuple[dict[str, Interval], dict[str, Difference]]:
    """Returns every row's GAUC with its interval, and its difference to row `best`.

    All come from the same draws of users. NaN with fewer than two users of both classes.
    """
    weights = rows[best].user_weights
    values = np.stack([own.user_aucs for own in rows.values()], axis=1)
    # Subtracted before they are drawn: rows that rank alike then differ by exactly 0.
    differences = values - rows[best].user_aucs[:, None]
    ends, p_values = np.full([2, len(rows)], np.nan), np.full(len(rows), np.nan)
    shift = np.full(len(rows), np.nan)
    if len(weights):
        shift = np.average(differences, axis=0, weights=weights)
    if len(weights) > 1:
        both = np.concatenate([values, differences], axis=1)
        draws = bootstrap_means(both, weights, num_resamples, seed=0)
        tail = (1 - confidence) / 2
        ends = np.quantile(draws[:, : len(rows)], [tail, 1 - tail], axis=0)
        p_values = bootstrap_p_values(draws[:, len(rows) :])
    intervals, pairs = {}, {}
    for i, (label, own) in enumerate(rows.items()):
        intervals[label] = Interval(float(own.gaucs.mean()), *ends[:, i].tolist())
        if label != best:
            pairs[label] = (float(shift[i]), float(p_values[i]))
    return intervals, _corrected(pairs)


def _corrected(pairs: Mapping[str, tuple[float, float]]) -> dict[str, Difference]:
    """Adds Holm's correction to differences and p-values by label."""
    corrected = holm([p_value for _, p_value in pairs.values()]).tolist()
    return {
        label: Difference(value, p_value, after)
        for (label, (value, p_value)), after in zip(pairs.items(), corrected, strict=True)
    }


def _measured(cells: list[Cell]) -> Measured:
    scored = [(cell.predictions.labels["ctr"], cell.predictions.logits["ctr"]) for cell in cells]
    users = cells[0].predictions.users
    reports = [metrics.grouped_auc_report(*pair, users) for pair in scored]
    usable = reports[0].weights > 0  # The labels decide: the same users for all cells.
    return Measured(
        cells=cells,
        placements=[placements(*pair) for pair in scored],
        gaucs=np.array([report.value for report in reports]),
        user_aucs=np.mean([report.aucs[usable] for report in reports], axis=0),
        user_weights=reports[0].weights[usable],
    )


def _check_exposures(cells: Sequence[Cell]) -> None:
    if not cells:
        raise ValueError("There are no cells to compare: expected one for every label and seed.")
    first = cells[0].predictions
    for cell in cells:
        own, name = cell.predictions, f"{cell.label!r}, seed {cell.seed}"
        if "ctr" not in own.logits:
            raise ValueError(f"{name} has tasks {sorted(own.logits)}: models need the task 'ctr'.")
        same = np.array_equal(own.users, first.users) and all(
            np.array_equal(own.labels[task], first.labels[task])
            for task in own.labels
            if task in first.labels
        )
        if not same:
            raise ValueError(
                f"{name} was not scored on the same exposures in the same order as "
                f"{cells[0].label!r}, seed {cells[0].seed}: run both on one prepared folder."
            )
    if len(np.unique(first.labels["ctr"])) < 2:
        raise ValueError(
            f"All {len(first.users)} test exposures have one class of 'ctr': no AUC is defined. "
            "Prepare more data."
        )


def _by_label(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.label, []).append(cell)
    seeds = {label: sorted(cell.seed for cell in group) for label, group in groups.items()}
    expected = next(iter(seeds.values()))
    for label, own in seeds.items():
        if own != expected or len(set(own)) < len(own):
            raise ValueError(
                f"{label!r} has seeds {own}, {next(iter(seeds))!r} {expected}: every label needs "
                "the same seeds, each once. Let the missing cells be made first."
            )
    return {label: sorted(group, key=lambda cell: cell.seed) for label, group in groups.items()}
