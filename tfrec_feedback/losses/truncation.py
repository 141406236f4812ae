"""Which observed positives a truncated loss drops, and how many."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfrec_feedback.losses.elements import is_positive

DROP_BASES = ("batch", "positives")
ROUNDINGS = ("floor", "ceil")
FORMS = ("paper", "code")
_SLACK = 1e-9
"""What a product may fall short of a whole number: 0.29 * 100 is 28.999999999999996."""
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


def truncation_weights(
    losses: tf.Tensor,
    labels: tf.Tensor,
    drop_rate: float | tf.Tensor,
    drop_base: str = "batch",
    rounding: str = "floor",
    max_positive_fraction: float = 0.5,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns 0 for the observed positives with the largest losses and 1 for everything else.

    `drop_rate * base` of them are dropped, never a negative. Of equal losses the one that comes
    first is dropped first; NaN counts as the largest. No gradient flows through the choice.

    Args:
        losses: float tensor `[B]`.
        labels: tensor `[B]`; 1 is an observed positive, everything else is none.
        drop_rate: share in [0, 1]. A float32 tensor counts as the nearest short decimal.
        drop_base: what the rate is a share of: `"batch"`, all elements (the paper, where negatives
            are sampled one to one), or `"positives"`.
        rounding: `"floor"` (the paper) or `"ceil"` (its code).
        max_positive_fraction: no more than this share of the positives is dropped. On impressions
            with a click rate of 3 %, 5 % of the batch would be all clicks.
        weights: tensor `[B]`; elements with weight 0 are neither counted nor dropped.

    Returns:
        Tensor `[B]` of 0 and 1, of the losses' type.

    Raises:
        ValueError: for unknown options, rates outside [0, 1], or tensors that do not fit.

    Example:
        >>> truncation_weights([0.1, 3.0, 0.7, 9.0], [1, 1, 1, 0], 0.25).numpy().tolist()
        [1.0, 0.0, 1.0, 1.0]

    Reference: Wang et al., 2021 (ADT), algorithm 1.
    """
    check_options(drop_base, rounding, max_positive_fraction)
    losses = tf.stop_gradient(_as_vector("losses", losses))
    positives = is_positive(_as_vector("labels", labels, losses))
    takes_part = tf.ones_like(positives)
    if weights is not None:
        takes_part = _as_vector("weights", weights, losses) > 0
    droppable = positives & takes_part
    num_positives = _count(droppable)
    base = _count(takes_part) if drop_base == "batch" else num_positives
    limit = tf.floor(max_positive_fraction * num_positives + _SLACK)
    num_dropped = tf.minimum(_rounded_share(drop_rate, base, rounding), limit)
    known = tf.where(tf.math.is_nan(losses), tf.cast(np.inf, losses.dtype), losses)
    keys = tf.where(droppable, known, tf.cast(-np.inf, losses.dtype))
    size = tf.size(keys)
    # Of equal keys `top_k` returns the one with the smaller index first, compiled by XLA as well.
    order = tf.math.top_k(keys, k=size).indices
    dropped = tf.range(size) < tf.cast(num_dropped, tf.int32)
    kept = 1.0 - tf.cast(dropped, losses.dtype)
    return tf.scatter_nd(order[:, tf.newaxis], kept, [size])


@dataclasses.dataclass(frozen=True)
class DropSchedule:
    """Drop rate that grows from 0 with the number of updates done, and stays at its maximum.

    Attributes:
        max_rate: eps_max, in [0, 1].
        num_steps: updates until it is reached, eps_N.
        form: `"paper"`: `min(t max_rate / num_steps, max_rate)`; `"code"`: as the authors' code,
            which interpolates `num_steps` values and reaches the maximum one update earlier.

    Example:
        >>> schedule = DropSchedule(0.2, num_steps=5)
        >>> [round(float(schedule(step)), 2) for step in (0, 1, 5, 9)]
        [0.0, 0.04, 0.2, 0.2]

    Reference: Wang et al., 2021 (ADT), truncated loss; `"code"`: WenjieWWJ/DenoisingRec.
    """

    max_rate: float
    num_steps: int
    form: str = "paper"

    def __post_init__(self) -> None:
        if not 0 <= self.max_rate <= 1:
            raise ValueError(f"max_rate must lie between 0 and 1, got {self.max_rate!r}.")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps!r}.")
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {list(FORMS)}, got {self.form!r}.")

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """Returns the rate after `step` updates: a float64 scalar."""
        span = self.num_steps if self.form == "paper" else max(self.num_steps - 1, 1)
        done = tf.cast(step, tf.float64) / span
        return self.max_rate * tf.minimum(done, tf.constant(1.0, tf.float64))


def check_options(drop_base: str, rounding: str, max_positive_fraction: float) -> None:
    """Raises ValueError for options of `truncation_weights` that do not exist."""
    if drop_base not in DROP_BASES:
        raise ValueError(f"drop_base must be one of {list(DROP_BASES)}, got {drop_base!r}.")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {list(ROUNDINGS)}, got {rounding!r}.")
    if not 0 <= max_positive_fraction <= 1:
        raise ValueError(
            f"max_positive_fraction must lie between 0 and 1, got {max_positive_fraction!r}."
        )


def _as_vector(name: str, values: tf.Tensor, like: tf.Tensor | None = None) -> tf.Tensor:
    """Returns a float tensor `[B]`, or raises ValueError."""
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating:
        values = tf.cast(values, tf.float32)
    expected = tf.TensorShape([None]) if like is None else like.shape
    if values.shape.rank not in (1, None) or not values.shape.is_compatible_with(expected):
        raise ValueError(f"{name} must have shape {expected}, got {values.shape}.")
    return values


def _count(marks: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(marks, tf.float64))


def _rounded_share(rate: float | tf.Tensor, base: tf.Tensor, rounding: str) -> tf.Tensor:
    """Returns `rate * base` as a whole number, computed in float64."""
    # A Python number must not pass through float32, TensorFlow's own choice for it.
    rate = tf.convert_to_tensor(rate if tf.is_tensor(rate) else np.asarray(rate))
    known = tf.get_static_value(rate)
    if known is not None and not 0 <= known <= 1:
        raise ValueError(f"drop_rate must lie between 0 and 1, got {known}.")
    share = tf.cast(rate, tf.float64) * base
    slack = _SLACK + (_FLOAT32_EPSILON * share if rate.dtype != tf.float64 else 0.0)
    if rounding == "floor":
        return tf.floor(share + slack)
    return tf.math.ceil(share - slack)
