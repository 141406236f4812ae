"""What every row adds to an AUC: the parts that DeLong's variance is made of."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tfrec_feedback.metrics._checks import Floats, as_labels, as_scores
from tfrec_feedback.metrics.ranks import mid_ranks


class AUCDifference(NamedTuple):
    """An AUC less another on the same rows, and DeLong's variance of that difference.

    The variance is NaN when a class has fewer than two rows.
    """

    value: float
    variance: float


@dataclasses.dataclass(frozen=True, eq=False)
class Placements:
    """One model's AUC by rows; compute it once and compare it with many.

    Attributes:
        positives: `[P]` share of negatives that each positive beats; ties count half.
        negatives: `[N]` share of positives above each negative.
    """

    positives: Floats
    negatives: Floats

    @property
    def auc(self) -> float:
        """The AUC; NaN when a class is absent."""
        return float(self.positives.mean()) if len(self.positives) else math.nan

    @property
    def variance(self) -> float:
        """DeLong's variance of the AUC; NaN when a class has fewer than two rows."""
        return _variance(self.positives) + _variance(self.negatives)

    def less(self, other: Placements) -> AUCDifference:
        """Returns this AUC less another on the same rows, with the variance of the difference.

        That equals var(a) + var(b) - 2 cov(a, b), but is computed without cancellation.
        """
        variance = _variance(self.positives - other.positives)
        variance += _variance(self.negatives - other.negatives)
        return AUCDifference(self.auc - other.auc, variance)


def placements(labels: ArrayLike, scores: ArrayLike, name: str = "scores") -> Placements:
    """Returns the placements of every row, from mid-ranks in O(n log n).

    Args:
        labels: `[n]` zeros and ones.
        scores: `[n]`, higher is more positive.
        name: of the scores in error messages.

    Raises:
        ValueError: for unequal lengths, labels other than 0 and 1, or NaN scores.

    Example:
        >>> parts = placements([0, 1, 0, 1], [1, 2, 3, 4])
        >>> parts.positives.tolist(), parts.negatives.tolist(), parts.auc
        ([0.5, 1.0], [1.0, 0.5], 0.75)

    Reference: DeLong et al., 1988; Sun and Xu, 2014 (fast form).
    """
    label = as_labels(labels)
    score = as_scores(name, scores, len(label))
    positive = label == 1
    ranks = mid_ranks(score)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    beaten = ranks[positive] - mid_ranks(score[positive])
    above = num_positive - (ranks[~positive] - mid_ranks(score[~positive]))
    with np.errstate(invalid="ignore"):  # An absent class gives 0 / 0 = NaN.
        return Placements(beaten / num_negative, above / num_positive)


def normal_p_value(difference: float, variance: float) -> float:
    """Returns the two-sided p-value of a normal difference whose expectation is 0.

    1 when there is neither difference nor variance; NaN when the variance is NaN, or 0 with a
    difference.

    Example:
        >>> round(normal_p_value(1.959964, 1.0), 6)
        0.05
    """
    if math.isnan(variance):
        return math.nan
    if variance == 0:
        return 1.0 if difference == 0 else math.nan
    return math.erfc(abs(difference) / math.sqrt(2 * variance))


def _variance(parts: Floats) -> float:
    """Returns the variance of the mean of `parts`; exactly 0 when they are all equal."""
    if len(parts) < 2:
        return math.nan
    if np.ptp(parts) == 0:
        return 0.0
    return float(parts.var(ddof=1) / len(parts))
