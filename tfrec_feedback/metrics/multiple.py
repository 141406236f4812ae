"""Several tests at once: p-values corrected for their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tfrec_feedback.metrics._checks import Floats, as_vector


def holm(p_values: ArrayLike) -> Floats:
    """Corrects p-values so that the chance of any false rejection stays below the level.

    In ascending order, the i-th of m p-values (i from 0) is multiplied by m - i; none becomes
    smaller than the one before it, or greater than 1. Valid however the tests depend on each
    other, and never weaker than Bonferroni's correction.

    Args:
        p_values: `[m]` in [0, 1]; NaN stands for a test that could not be made.

    Returns:
        float64 array `[m]`, in the order given; NaN stays NaN and does not count as a test.

    Raises:
        ValueError: for values outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]

    Reference: Holm, 1979, A simple sequentially rejective multiple test procedure.
    """
    p_value = as_vector("p_values", p_values).astype(np.float64)
    known = ~np.isnan(p_value)
    if ((p_value[known] < 0) | (p_value[known] > 1)).any():
        raise ValueError(f"p_values must lie in [0, 1], got {p_value[known].tolist()}.")
    order = np.flatnonzero(known)[np.argsort(p_value[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(len(p_value), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p_value[order] * factors), 1.0)
    return corrected
