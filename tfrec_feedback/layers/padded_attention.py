"""DIN's activation unit over padded histories, for steps that XLA compiles.

One hidden layer with Dice is most of DIN's training. Here it makes few passes over all pairs of
events and candidates: pre-activations come out of one product (`pair_layer.py`), already
normalised where their statistics are known beforehand (`pair_moments.py`). And with

    p(s) = (1 + tanh(x / 2)) / 2,   x = (s - mean) / deviation

the score `sum_h w (p s + (1 - p) alpha s)` is a layer of one unit, linear in s, and
`sum_h tanh(x / 2) (slope x + level)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfrec_feedback.layers.dice import EPSILON, Dice
from tfrec_feedback.layers.pair_layer import Kernels, pre_activations
from tfrec_feedback.layers.pair_moments import pair_moments
from tfrec_feedback.layers.products import weighted_sum

_MANY = 4
"""Candidates from which a request's moments cost less than statistics of its pairs."""


class PaddedEvents(NamedTuple):
    """Events of a history as a dense tensor; what ragged events are, but of static shape.

    Attributes:
        flat_values: `[R, T, ...]`; exactly 0 where padded.
        valid: `[R, T]`, 1 where there is an event.
    """

    flat_values: tf.Tensor
    valid: tf.Tensor

    def with_flat_values(self, values: tf.Tensor) -> PaddedEvents:
        """Returns these events with other values, as ragged tensors do."""
        return self._replace(flat_values=values)


def dice_scores(
    candidates: tf.Tensor,
    events: PaddedEvents,
    valid: tf.Tensor,
    kernels: Kernels,
    dice: Dice,
    weights: tf.Tensor,
) -> tf.Tensor:
    """Scores of a layer with Dice and an output unit, in training; moves Dice's averages.

    Args:
        candidates: q, `[R, N, D]`.
        events: k, `[R, T, D]`.
        valid: `[R, N]`, 1 where a candidate is valid.
        kernels: of the layer before Dice.
        dice: by the batch's statistics.
        weights: of the output unit, `[H]`.

    Returns:
        float tensor `[R, T, N]`, without the output's bias; garbage at what is padded.

    Reference: Zhou et al., 2018 (DIN), eq. 2 and 3.
    """
    pairs = events.valid[..., tf.newaxis] * valid[:, tf.newaxis]
    shares = pairs / tf.maximum(tf.reduce_sum(pairs), 1.0)
    inputs = candidates, events.flat_values
    if (candidates.shape[1] or 0) >= _MANY:
        mean, variance = pair_moments(*inputs, valid, events.valid, kernels)
        scale = tf.math.rsqrt(variance + EPSILON)
        x = pre_activations(*inputs, events.valid, kernels.normalised(mean, scale))
    else:
        s = pre_activations(*inputs, events.valid, kernels)
        x, mean, variance = standardised(s, shares, weights.shape[0])
        scale = tf.math.rsqrt(variance + EPSILON)
    dice.move_averages(mean, variance, tf.reduce_sum(shares))
    gain, bend = weights * (1.0 + dice.alpha) / 2.0, weights * (1.0 - dice.alpha) / 2.0
    linear = pre_activations(*inputs, events.valid, kernels.projected(gain))
    return linear + bent_sum(x, bend / scale, bend * mean)


def standardised(
    s: tf.Tensor, shares: tf.Tensor, units: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`(s - mean) / deviation` of every unit, by the batch's own statistics.

    Args:
        s: `[R, T, N H]`.
        shares: `[R, T, N]`, weight of every pair in mean and variance.
        units: H.

    Returns:
        `[R, T, N H]`, and mean and variance, `[H]`.
    """
    count, of_pair = tf.shape(shares)[2], tf.reshape(shares, [-1])

    def total(weights: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return weighted_sum(weights, tf.reshape(x, [-1, units]))

    @tf.custom_gradient
    def written(s: tf.Tensor) -> Any:
        mean = total(of_pair, s)
        centred = s - tf.tile(mean, [count])
        variance = total(of_pair, tf.square(centred))
        scale = tf.math.rsqrt(variance + EPSILON)
        x = centred * tf.tile(scale, [count])

        def gradient(upstream: tf.Tensor, of_mean: tf.Tensor, of_variance: tf.Tensor) -> Any:
            level = total(tf.ones_like(of_pair), upstream) * scale - of_mean
            slope = total(tf.ones_like(of_pair), upstream * x) * scale - 2.0 * of_variance / scale
            through = tf.tile(level, [count]) + x * tf.tile(slope, [count])
            return tf.tile(scale, [count]) * upstream - tf.repeat(shares, units, 2) * through

        return (x, mean, variance), gradient

    return written(s)


@tf.custom_gradient
def bent_sum(x: tf.Tensor, slope: tf.Tensor, level: tf.Tensor) -> Any:
    """`sum_h tanh(x_h / 2) (slope_h x_h + level_h)` of every pair.

    Args:
        x: `[R, T, N H]`.
        slope: `[H]`.
        level: `[H]`.

    Returns:
        `[R, T, N]`.
    """
    units, count = slope.shape[0], tf.shape(x)[2] // slope.shape[0]
    # Rows as long as can be: XLA's loops leave the ends of rows to slow code.
    bent = tf.tanh(0.5 * tf.reshape(x, [tf.shape(x)[0], -1]))
    x_rows, bent_rows = tf.reshape(x, [-1, units]), tf.reshape(bent, [-1, units])
    result = tf.linalg.matvec(bent_rows * (slope * x_rows + level), tf.ones([units]))

    def gradient(upstream: tf.Tensor) -> Any:
        of_pair = tf.reshape(upstream, [-1])
        of_slope = weighted_sum(of_pair, bent_rows * x_rows)
        of_level = weighted_sum(of_pair, bent_rows)
        # All candidates of an event in a row: broadcasts along units of 36 would not be vectors.
        z, y = (tf.reshape(rows, [-1, count * units]) for rows in (bent, x))
        slopes, levels = tf.tile(slope, [count]), tf.tile(level, [count])
        u = tf.repeat(tf.reshape(upstream, [-1, count]), units, axis=1)
        of_x = u * ((0.5 - 0.5 * z * z) * (slopes * y + levels) + z * slopes)
        return tf.reshape(of_x, tf.shape(x)), of_slope, of_level

    return tf.reshape(result, [*tf.unstack(tf.shape(x)[:2]), count]), gradient
