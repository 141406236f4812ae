"""Mean and variance of a layer over pairs, from moments of candidates and of events.

Pre-activations are linear in [q, k, q * k], so two moments of that say all, and a request's sums
of its products over pairs factorise into sums over its candidates and sums over its events: no
tensor as long as there are pairs is read.
"""

from __future__ import annotations

import tensorflow as tf

from tfrec_feedback.layers.pair_layer import Kernels, sum_requests
from tfrec_feedback.layers.products import batched_product, project, weighted_sum


def pair_moments(
    candidates: tf.Tensor,
    events: tf.Tensor,
    valid_candidates: tf.Tensor,
    valid_events: tf.Tensor,
    kernels: Kernels,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of s over the valid pairs, without making s.

    Args:
        candidates: q, `[R, N, D]`.
        events: k, `[R, T, D]`.
        valid_candidates: `[R, N]`, 1 where valid.
        valid_events: `[R, T]`, 1 where valid.
        kernels: of the layer.

    Returns:
        Mean and variance, `[H]`; without any valid pair the bias and 0.
    """
    counts = tf.reduce_sum(valid_candidates, 1), tf.reduce_sum(valid_events, 1)
    pairs = tf.maximum(tf.reduce_sum(counts[0] * counts[1]), 1.0)
    # About their means, or the variance would be a small difference of large squares.
    q, q_mean = _centred(candidates, valid_candidates, counts[1] / pairs)
    k, k_mean = _centred(events, valid_events, counts[0] / pairs)
    of_query = kernels.of_query + k_mean[:, tf.newaxis] * kernels.of_product
    of_key = kernels.of_key + q_mean[:, tf.newaxis] * kernels.of_product
    theta = tf.concat([of_query, of_key, kernels.of_product], axis=0)
    first, second = _product_moments(q, k, (counts[0] / pairs, counts[1] / pairs), pairs)
    mean = tf.linalg.matvec(theta, first, transpose_a=True)
    covariance = second - first[:, tf.newaxis] * first
    variance = sum_requests(theta * project(covariance, theta))
    constant = tf.linalg.matvec(of_query, q_mean, transpose_a=True)
    constant += tf.linalg.matvec(kernels.of_key, k_mean, transpose_a=True)
    return mean + constant + kernels.bias, tf.maximum(variance, 0.0)


def _centred(x: tf.Tensor, valid: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the pairs' mean off the valid rows; what is taken off is a constant to gradients."""
    share = (valid * weights[:, tf.newaxis])[..., tf.newaxis]
    mean = tf.stop_gradient(sum_requests(tf.reduce_sum(x * share, axis=1)))
    return (x - mean) * valid[..., tf.newaxis], mean


def _product_moments(
    q: tf.Tensor, k: tf.Tensor, shares: tuple[tf.Tensor, tf.Tensor], pairs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """First and second moments of `[q, k, q * k]` over pairs, `[3 D]` and `[3 D, 3 D]`."""
    q_sum, k_sum = tf.reduce_sum(q, axis=1), tf.reduce_sum(k, axis=1)
    q_part, k_part = q_sum / pairs, k_sum / pairs
    qq, q_product = _squares(q, shares[1][:, tf.newaxis], k_part)
    kk, k_product = _squares(k, shares[0][:, tf.newaxis], q_part)
    qk = batched_product(tf.transpose(q_part), k_sum)
    q_square, k_square = (batched_product(tf.transpose(x, [0, 2, 1]), x) for x in (q, k))
    product = sum_requests(q_square * k_square) / pairs
    transposed = [tf.transpose(x) for x in (qk, q_product, k_product)]
    rows = [[qq, qk, q_product], [transposed[0], kk, k_product], [*transposed[1:], product]]
    second = tf.concat([tf.concat(row, axis=1) for row in rows], axis=0)
    of_q = weighted_sum(shares[1], q_sum)
    of_k = weighted_sum(shares[0], k_sum)
    return tf.concat([of_q, of_k, sum_requests(q_part * k_sum)], axis=0), second


def _squares(x: tf.Tensor, *weights: tf.Tensor) -> list[tf.Tensor]:
    """`sum_r sum_i x_id (x_ie w_re)` for weights `[R, 1]` or `[R, D]`: each `[D, D]`."""
    width = x.shape[-1]
    weighted = tf.concat([x * w[:, tf.newaxis] for w in weights], axis=-1)
    flat = tf.transpose(tf.reshape(x, [-1, width]))
    squares = batched_product(flat, tf.reshape(weighted, [-1, weighted.shape[-1]]))
    return tf.split(squares, len(weights), axis=1)
