"""How far an AUC may be trusted: intervals, and a test of two models on the same rows."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tfrec_feedback.metrics._checks import Floats, check_confidence
from tfrec_feedback.metrics.grouped import Weighting, grouped_auc_report
from tfrec_feedback.metrics.placements import Placements, normal_p_value, placements

_MAX_DRAWS = 2_000_000
"""Bootstrap counts held at a time (16 MB)."""


class Interval(NamedTuple):
    """An estimate with the two ends of its confidence interval."""

    value: float
    low: float
    high: float


class DeLongTest(NamedTuple):
    """The AUCs of two models on the same rows and the two-sided p-value of their difference."""

    auc_a: float
    auc_b: float
    p_value: float


def auc_interval(labels: ArrayLike, scores: ArrayLike, confidence: float = 0.95) -> Interval:
    """AUC with DeLong's confidence interval, from mid-ranks in O(n log n).

    The interval is symmetric in logit(AUC), so it stays inside [0, 1] and covers better near the
    ends than the plain one. Rows are taken to be independent: where a user gives many rows, it is
    too narrow, and `grouped_auc_interval` is the honest one.

    Args:
        labels: `[n]` zeros and ones.
        scores: `[n]`, higher is more positive.
        confidence: coverage asked for.

    Returns:
        `Interval`. All NaN when a class is absent; NaN ends when the data do not tell the variance:
        a class with a single row, or an AUC of exactly 0 or 1.

    Raises:
        ValueError: as `auc`, and for a confidence outside (0, 1).

    Example:
        >>> value, low, high = auc_interval([0, 0, 1, 0, 1, 1], [1, 2, 3, 4, 5, 6])
        >>> round(value, 4), round(low, 4), round(high, 4)
        (0.8889, 0.2614, 0.9945)

    Reference: DeLong et al., 1988; Sun and Xu, 2014 (fast form).
    """
    return placement_interval(placements(labels, scores), confidence)


def placement_interval(parts: Placements, confidence: float = 0.95) -> Interval:
    """Returns `auc_interval` from placements that are already known."""
    check_confidence(confidence)
    value, variance = parts.auc, parts.variance
    if math.isnan(value):
        return Interval(math.nan, math.nan, math.nan)
    if math.isnan(variance) or not 0 < value < 1:
        return Interval(value, math.nan, math.nan)
    # d logit(x) / dx = 1 / (x (1 - x)): the delta method carries the standard error over.
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance) / (value * (1 - value))
    odds = value / (1 - value)
    return Interval(value, 1 / (1 + math.exp(reach) / odds), 1 / (1 + math.exp(-reach) / odds))


def delong_test(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> DeLongTest:
    """Tests whether two models' AUCs on the same rows differ (paired, two-sided).

    Rows are taken to be independent; many rows a user make the p-value too small.

    Returns:
        `DeLongTest`. The p-value is 1 when both rank alike, and NaN when it is undefined: a class
        with fewer than two rows, or AUCs that differ without any variance.

    Raises:
        ValueError: as `auc`.

    Example:
        >>> same = delong_test([0, 1, 0, 1], [1, 2, 3, 4], [10, 20, 30, 40])
        >>> same
        DeLongTest(auc_a=0.75, auc_b=0.75, p_value=1.0)

    Reference: DeLong et al., 1988; Sun and Xu, 2014.
    """
    parts_a = placements(labels, scores_a, "scores_a")
    parts_b = placements(labels, scores_b, "scores_b")
    return DeLongTest(parts_a.auc, parts_b.auc, normal_p_value(*parts_a.less(parts_b)))


def grouped_auc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    weighting: Weighting = "impressions",
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Grouped AUC with a bootstrap interval over groups, which may hold dependent rows.

    Whole groups (users) are drawn with replacement; the interval lies between the percentiles of
    the resampled grouped AUCs. AUCs of groups are computed once and only reweighted.

    Returns:
        `Interval`, equal for equal seeds. NaN ends with fewer than two usable groups.

    Raises:
        ValueError: as `grouped_auc`, for a confidence outside (0, 1), or no resamples.

    Example:
        >>> args = [0, 1, 0, 1, 1, 0], [0.1, 0.9, 0.2, 0.8, 0.3, 0.4], [7, 7, 8, 8, 9, 9]
        >>> interval = grouped_auc_interval(*args)
        >>> round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)
        (0.6667, 0.0, 1.0)
    """
    report = grouped_auc_report(labels, scores, groups, weighting)
    usable = report.weights > 0
    low, high = _bootstrap(
        report.aucs[usable], report.weights[usable], confidence, num_resamples, seed
    )
    return Interval(report.value, low, high)


def grouped_auc_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike,
    weighting: Weighting = "impressions",
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Grouped AUC of one model less that of another on the same rows, with a paired bootstrap.

    Every draw of groups counts for both models, so what is hard for both cancels.

    Returns:
        `Interval` of the difference; 0 outside it is a difference at this confidence. NaN ends
        with fewer than two usable groups.

    Raises:
        ValueError: as `grouped_auc_interval`.

    Example:
        >>> labels, users = [0, 1, 0, 1], [7, 7, 8, 8]
        >>> grouped_auc_difference(labels, [1, 2, 3, 4], [2, 1, 4, 3], users)
        Interval(value=1.0, low=1.0, high=1.0)
    """
    report_a = grouped_auc_report(labels, scores_a, groups, weighting)
    report_b = grouped_auc_report(labels, scores_b, groups, weighting)
    usable = report_a.weights > 0  # The labels decide: the same groups for both.
    differences = report_a.aucs[usable] - report_b.aucs[usable]
    low, high = _bootstrap(differences, report_a.weights[usable], confidence, num_resamples, seed)
    return Interval(report_a.value - report_b.value, low, high)


def bootstrap_means(values: Floats, weights: Floats, num_resamples: int, seed: int) -> Floats:
    """Draws groups with replacement and returns the weighted means of their values.

    All columns share the draws, so their differences are paired.

    Args:
        values: `[G, K]`: K values of every group.
        weights: `[G]` weight of every group, greater than 0.
        num_resamples: draws of G groups each.
        seed: equal seeds give equal draws.

    Returns:
        float64 array `[num_resamples, K]`.

    Raises:
        ValueError: when there are no groups or no resamples.
    """
    if num_resamples < 1 or not len(values):
        raise ValueError(
            "A bootstrap needs at least one group and one resample, got "
            f"{len(values)} and {num_resamples}."
        )
    size = len(values)
    rng = np.random.default_rng(seed)
    step = max(1, _MAX_DRAWS // size)
    means = []
    for start in range(0, num_resamples, step):
        rows = min(step, num_resamples - start)
        counts = rng.multinomial(size, np.full(size, 1 / size), size=rows).astype(np.float64)
        means.append(counts @ (weights[:, None] * values) / (counts @ weights)[:, None])
    return np.concatenate(means)


def bootstrap_p_values(draws: Floats) -> Floats:
    """Returns the two-sided p-value of a difference from its bootstrap draws.

    `2 min(share of draws <= 0, share of draws >= 0)`, at most 1, with one draw added to both
    shares, so that no p-value is 0: the smallest is 2 / (draws + 1).

    Args:
        draws: `[num_resamples, K]`, from `bootstrap_means`.

    Returns:
        float64 array `[K]`.

    Example:
        >>> bootstrap_p_values(np.array([[1.0], [2.0], [-1.0], [3.0]])).tolist()
        [0.8]

    Reference: Davison and Hinkley, 1997, Bootstrap Methods and their Application, section 4.2.
    """
    fewer = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    return np.minimum(2.0 * (fewer + 1) / (len(draws) + 1), 1.0)


def _bootstrap(
    values: Floats, weights: Floats, confidence: float, num_resamples: int, seed: int
) -> tuple[float, float]:
    """Returns percentiles of the weighted mean of `values`, drawn with replacement."""
    check_confidence(confidence)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}.")
    if len(values) < 2:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    means = bootstrap_means(values[:, None], weights, num_resamples, seed)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
