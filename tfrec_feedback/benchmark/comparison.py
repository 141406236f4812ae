"""Which models of a benchmark differ, and by how much more than chance."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrec_feedback import metrics
from tfrec_feedback.benchmark.cells import Cell, Timing
from tfrec_feedback.benchmark.measured import (
    Difference,
    Spread,
    auc_differences,
    gauc_bootstrap,
    measure,
    spread,
)
from tfrec_feedback.data.manifest import write_atomically
from tfrec_feedback.metrics._checks import check_confidence
from tfrec_feedback.metrics.intervals import Interval

_FEWEST_DRAWS = 2000
_DRAWS_PER_ROW = 100
"""The smallest bootstrap p-value, 2 / (draws + 1), must survive the correction for all rows."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table. A number that is undefined is NaN, one that was not asked for None.

    Attributes:
        label: what the row is called.
        seeds: that it was trained with.
        ctr_auc: over seeds.
        ctr_auc_interval: means over seeds of the AUC and of the ends of DeLong's intervals: what
            the test rows leave open, not what another seed would change.
        gauc: AUC within users, weighted by impressions, over seeds.
        gauc_interval: of the mean over seeds, from a bootstrap over users.
        dislike_auc: over seeds; None where the model has no such task.
        rela_impr: of the mean AUC against the base row, in percent; None without base row.
        parameters: trainable weights.
        samples_per_second: of training; None without timing.
        latency_ms: of one request of 100 candidates; None without timing.
        auc_difference: to the best row (DeLong); None for the best row itself.
        gauc_difference: to the best row (bootstrap over users); None for the best row itself.
        settings: chosen by tuning, the same for all seeds.
    """

    label: str
    seeds: tuple[int, ...]
    ctr_auc: Spread
    ctr_auc_interval: Interval
    gauc: Spread
    gauc_interval: Interval
    dislike_auc: Spread | None
    rela_impr: float | None
    parameters: int
    samples_per_second: float | None
    latency_ms: float | None
    auc_difference: Difference | None
    gauc_difference: Difference | None
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The rows of a benchmark and what they were compared on.

    Attributes:
        rows: in the order of the cells.
        best: label of the row of the highest mean CTR AUC.
        base: label that `rela_impr` refers to; None where there is no such row.
        confidence: of the intervals; 1 less this is the level of the tests.
        exposures: test rows.
        users: all users of the test rows.
        ranked_users: those with clicked and unclicked exposures; GAUC is of them.
        num_resamples: draws of users.
    """

    rows: tuple[Row, ...]
    best: str
    base: str | None
    confidence: float
    exposures: int
    users: int
    ranked_users: int
    num_resamples: int

    def ranked(self) -> list[Row]:
        """Returns the rows by CTR AUC, the best first."""
        return sorted(self.rows, key=lambda row: row.ctr_auc.mean, reverse=True)

    def is_tied(self, difference: Difference | None) -> bool:
        """Returns whether a row's corrected p-value does not tell it from the best row."""
        return difference is not None and difference.corrected >= 1 - self.confidence


def compare_cells(
    cells: Sequence[Cell],
    timings: Mapping[str, Timing],
    base: str = "fm",
    confidence: float = 0.95,
) -> Comparison:
    """Compares the rows of a benchmark on the test split they all scored.

    Differences to the best row (highest mean CTR AUC) are paired and tested twice, each family
    corrected by Holm for the number of rows but the best:

    - AUC: DeLong's test. All seeds are scored on the same test rows, so their sampling errors are
      taken to be perfectly dependent: `z = mean(difference) / sqrt(mean(variance))` over seeds,
      without a factor 1 / seeds. Errors that are less dependent would make the variance of the
      mean smaller, never greater, so the p-value is conservative. Seeds are paired as they come:
      the i-th seed of a row with the i-th of the best one. Exposures are taken to be independent.
    - GAUC: bootstrap over users, whose exposures may depend on each other. Each user's AUC is
      averaged over seeds and the rows' difference, weighted by impressions, is resampled.

    Both speak of the models as they were trained: what other seeds would change is shown by the
    deviations. The best row is chosen on the same test rows, which favours it slightly: read a row
    without a significant difference as "as good as the best".

    Args:
        cells: one for every label and seed, in any order.
        timings: by label; rows without one have None.
        base: label of the row that relative improvements refer to.
        confidence: of the intervals, in (0, 1).

    Returns:
        `Comparison`, equal for equal cells.

    Raises:
        ValueError: without cells, for cells that scored other exposures, for labels with other
            seeds or a seed twice, and for test rows of a single class.

    Example:
        >>> from tfrec_feedback.benchmark.cells import load_cell
        >>> found = sorted(Path("runs/benchmark/simulated/cells").rglob("cell.json"))
        >>> cells = [load_cell(path.parent) for path in found]
        >>> compare_cells(cells, {}).best  # doctest: +SKIP
        'dumn'

    Reference: DeLong et al., 1988; Holm, 1979; Yan et al., 2014 (RelaImpr).
    """
    check_confidence(confidence)
    rows = measure(cells)
    best = max(rows, key=lambda label: rows[label].auc)
    draws = max(_FEWEST_DRAWS, _DRAWS_PER_ROW * len(rows))
    auc_by_label = auc_differences(rows, best)
    intervals, gauc_by_label = gauc_bootstrap(rows, best, confidence, draws)
    base_auc = rows[base].auc if base in rows else None
    return Comparison(
        rows=tuple(
            Row(
                label=label,
                seeds=tuple(cell.seed for cell in own.cells),
                ctr_auc=spread([parts.auc for parts in own.placements]),
                ctr_auc_interval=own.auc_interval(confidence),
                gauc=spread(own.gaucs),
                gauc_interval=intervals[label],
                dislike_auc=own.dislike_auc,
                rela_impr=None if base_auc is None else metrics.rela_impr(own.auc, base_auc),
                parameters=own.cells[0].parameters,
                samples_per_second=getattr(timings.get(label), "samples_per_second", None),
                latency_ms=getattr(timings.get(label), "latency_ms", None),
                auc_difference=auc_by_label.get(label),
                gauc_difference=gauc_by_label.get(label),
                settings=own.cells[0].settings,
            )
            for label, own in rows.items()
        ),
        best=best,
        base=base if base in rows else None,
        confidence=confidence,
        exposures=len(cells[0].predictions.users),
        users=len(np.unique(cells[0].predictions.users)),
        ranked_users=len(rows[best].user_weights),
        num_resamples=draws,
    )


def write_csv(comparison: Comparison, path: str | Path) -> None:
    """Writes one line a row, the best first; what is undefined or missing is left empty.

    Args:
        comparison: from `compare_cells`.
        path: of the file; replaced as a whole.
    """
    text = io.StringIO()
    records = [_record(row) for row in comparison.ranked()]
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_atomically(Path(path), text.getvalue().encode("utf-8"))


def _record(row: Row) -> dict[str, Any]:
    unknown = Difference(math.nan, math.nan, math.nan)
    auc, gauc = row.auc_difference or unknown, row.gauc_difference or unknown
    dislike = row.dislike_auc or Spread(math.nan, math.nan)
    record = {
        "label": row.label,
        "seeds": len(row.seeds),
        "ctr_auc": row.ctr_auc.mean,
        "ctr_auc_deviation": row.ctr_auc.deviation,
        "ctr_auc_low": row.ctr_auc_interval.low,
        "ctr_auc_high": row.ctr_auc_interval.high,
        "gauc": row.gauc.mean,
        "gauc_deviation": row.gauc.deviation,
        "gauc_low": row.gauc_interval.low,
        "gauc_high": row.gauc_interval.high,
        "dislike_auc": dislike.mean,
        "dislike_auc_deviation": dislike.deviation,
        "rela_impr_percent": row.rela_impr,
        "ctr_auc_difference": auc.value,
        "ctr_auc_p": auc.p_value,
        "ctr_auc_p_corrected": auc.corrected,
        "gauc_difference": gauc.value,
        "gauc_p": gauc.p_value,
        "gauc_p_corrected": gauc.corrected,
        "parameters": row.parameters,
        "samples_per_second": row.samples_per_second,
        "latency_ms": row.latency_ms,
        "settings": json.dumps(row.settings, sort_keys=True),
    }
    return {name: "" if x is None or x != x else x for name, x in record.items()}
