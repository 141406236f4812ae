"""AUC inside groups (users, requests), averaged over the groups."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfrec_feedback.metrics._checks import Floats, as_labels, as_scores, as_vector
from tfrec_feedback.metrics.ranks import won_pairs

Weighting = Literal["impressions", "clicks", "uniform"]


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedAUC:
    """A grouped AUC with what it is made of.

    Attributes:
        value: weighted mean of the groups' AUCs; NaN when no group has both classes.
        num_groups: G, all groups, those of a single class included.
        num_single_class: groups without positives or without negatives; they are skipped.
        skipped_share: share of all rows (impressions) that lies in skipped groups.
        groups: `[G]` the group ids, sorted.
        aucs: `[G]` AUC of each group, NaN where skipped.
        weights: `[G]` weight of each group, 0 where skipped.
    """

    value: float
    num_groups: int
    num_single_class: int
    skipped_share: float
    groups: NDArray[Any]
    aucs: Floats
    weights: Floats


def grouped_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    weighting: Weighting = "impressions",
) -> float:
    """Weighted mean of the AUCs inside each group: how well items are ranked for one user.

    `sum_g w_g AUC_g / sum_g w_g` over groups that have both classes; the others cannot be ranked
    and are skipped. See `grouped_auc_report` for their share and for arguments and errors.

    Returns:
        GAUC in [0, 1]; NaN when no group has both classes.

    Example:
        >>> scores = [0.9, 0.8, 0.3, 0.4, 0.5, 0.5, 0.2]
        >>> round(grouped_auc([1, 0, 1, 0, 0, 1, 0], scores, [0, 0, 0, 0, 1, 1, 1]), 6)
        0.607143
    """
    return grouped_auc_report(labels, scores, groups, weighting).value


def grouped_auc_report(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    weighting: Weighting = "impressions",
) -> GroupedAUC:
    """Grouped AUC with the AUC and weight of every group. One sort, no loop over groups.

    Args:
        labels: `[n]` zeros and ones.
        scores: `[n]`, higher is more positive.
        groups: `[n]` group of each row: integers, strings or bytes.
        weighting: weight of a group: its rows (`impressions`), its positives (`clicks`), or 1
            (`uniform`).

    Raises:
        ValueError: for unequal lengths, labels other than 0 and 1, NaN scores, groups that
            cannot be sorted, or an unknown weighting.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting must be one of {get_args(Weighting)}, got {weighting!r}.")
    label = as_labels(labels)
    score = as_scores("scores", scores, len(label))
    try:
        names, codes = np.unique(as_vector("groups", groups, len(label)), return_inverse=True)
    except TypeError as error:
        raise ValueError(
            "groups must be all integers, all strings or all bytes, without missing values."
        ) from error
    impressions = np.bincount(codes, minlength=len(names)).astype(np.float64)
    clicks = np.bincount(codes, label, minlength=len(names))
    pairs = clicks * (impressions - clicks)
    usable = pairs > 0
    won = won_pairs(score, label, 1 - label, codes, len(names))
    aucs = np.full(len(names), np.nan)
    aucs[usable] = won[usable] / pairs[usable]
    by_name = {"impressions": impressions, "clicks": clicks, "uniform": np.ones(len(names))}
    weights = np.where(usable, by_name[weighting], 0.0)
    return GroupedAUC(
        value=float(np.average(aucs[usable], weights=weights[usable]) if usable.any() else np.nan),
        num_groups=len(names),
        num_single_class=int((~usable).sum()),
        skipped_share=float(impressions[~usable].sum() / max(len(label), 1)),
        groups=names,
        aucs=aucs,
        weights=weights,
    )
