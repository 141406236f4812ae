"""Exact area under the ROC curve, and how click papers compare two of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tfrec_feedback.metrics._checks import as_labels, as_scores, as_weights
from tfrec_feedback.metrics.ranks import won_pairs


def auc(labels: ArrayLike, scores: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Probability that a random positive scores above a random negative; ties count half.

    `(sum of the positives' mid-ranks - P (P + 1) / 2) / (P N)`, without bins: published results
    differ in the fourth decimal, below what a 200-threshold curve resolves. O(n log n). Pass
    logits rather than probabilities, which tie where the sigmoid saturates. The dislike AUC of a
    one-output click model is `auc(dislikes, -logits)`.

    Args:
        labels: `[n]` zeros and ones.
        scores: `[n]`, higher is more positive; any scale, infinities allowed.
        sample_weight: `[n]` weights >= 0; a pair weighs the product of its two.

    Returns:
        AUC in [0, 1]; NaN when a class is absent (or weighs nothing), where it is undefined.

    Raises:
        ValueError: for unequal lengths, labels other than 0 and 1, NaN scores, bad weights.

    Example:
        >>> auc([1, 0, 1, 0], [0.9, 0.8, 0.3, 0.4])
        0.5
    """
    label = as_labels(labels)
    score = as_scores("scores", scores, len(label))
    weight = as_weights(sample_weight, len(label))
    positive, negative = weight * label, weight * (1 - label)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return math.nan
    groups = np.zeros(len(label), np.int64)
    return float(won_pairs(score, positive, negative, groups, 1)[0] / pairs)


def rela_impr(auc: float, base_auc: float) -> float:
    """Relative improvement over a base model, in PERCENT as printed in the papers' tables.

    `100 * ((auc - 0.5) / (base_auc - 0.5) - 1)`: a coin already scores 0.5, so only what lies
    above it is compared.

    Returns:
        Percent, 0 for equal AUCs; NaN when the base is no better than a coin (0.5).

    Example:
        >>> round(rela_impr(0.7898, 0.7591), 6)
        11.848707

    Reference: Xie et al., 2020 (DFN), results tables.
    """
    if base_auc == 0.5:
        return math.nan
    return 100.0 * ((auc - 0.5) / (base_auc - 0.5) - 1.0)
