"""Whether predicted probabilities are true as numbers, not only as an order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tfrec_feedback.metrics._checks import as_labels, as_scores, as_weights
from tfrec_feedback.metrics.ranks import mid_ranks


def log_loss(labels: ArrayLike, logits: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Mean cross entropy in nats, from logits, so that it is finite for any finite logit.

    Compare it only between models trained with the unweighted cross entropy. A loss that weights
    dislikes, truncates or reweights clicks moves the optimal probability away from the click rate,
    and log loss then measures the weighting rather than the model; compare AUCs instead.

    Args:
        labels: `[n]` zeros and ones.
        logits: `[n]` before the sigmoid.
        sample_weight: `[n]` weights >= 0; the mean is divided by their sum.

    Returns:
        Mean loss; NaN without rows or weight.

    Raises:
        ValueError: for unequal lengths, labels other than 0 and 1, NaN logits, bad weights.

    Example:
        >>> round(log_loss([1, 0], [0.0, 0.0]), 6)
        0.693147
    """
    label = as_labels(labels)
    logit = as_scores("logits", logits, len(label))
    weight = as_weights(sample_weight, len(label))
    total = weight.sum()
    if not total:
        return math.nan
    losses = np.logaddexp(0.0, np.where(label == 1, -logit, logit))
    return float((weight * losses).sum() / total)


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, num_bins: int = 15
) -> float:
    """Mean distance between predicted and observed rate over bins of equal numbers of rows.

    `sum_b n_b / n * |mean(probability) - mean(label)|`. Bins hold equal numbers of rows because
    click probabilities crowd at the low end; rows of equal probability always share a bin, so the
    order of the rows does not matter.

    Args:
        labels: `[n]` zeros and ones.
        probabilities: `[n]` in [0, 1].
        num_bins: number of bins; fewer come out when many rows share a probability.

    Returns:
        Error in [0, 1]; NaN without rows.

    Raises:
        ValueError: for unequal lengths, labels other than 0 and 1, values outside [0, 1], no bins.

    Example:
        >>> expected_calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.5, 0.5], num_bins=2)
        0.375
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
    label = as_labels(labels)
    probability = as_scores("probabilities", probabilities, len(label))
    if ((probability < 0) | (probability > 1)).any():
        raise ValueError(
            f"probabilities must lie in [0, 1], got {probability.min()} to {probability.max()}; "
            "apply the sigmoid to logits first."
        )
    if not len(label):
        return math.nan
    bins = ((mid_ranks(probability) - 0.5) * num_bins / len(label)).astype(np.int64)
    gaps = np.bincount(bins, probability - label)
    return float(np.abs(gaps).sum() / len(label))
