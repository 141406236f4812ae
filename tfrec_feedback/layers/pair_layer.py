"""A layer over every pair of a candidate and a padded event, without forming the pairs.

A layer that is linear in candidate q, event k and their product gives, for R requests of N
candidates and T events of width D, `s[r, t, n] = [k_t, 1] M[r, :, n]`, with a kernel M of the
candidate's own: one batched product. Written for steps that XLA compiles, where a tensor `[P, H]`
over all pairs is worth sparing, and where products are faster than sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfrec_feedback.layers.products import batched_product, project, weighted_sum


class Kernels(NamedTuple):
    """A layer linear in candidate q, event k and their product, cut by its inputs.

    Attributes:
        of_query: `[D, H]`.
        of_key: `[D, H]`.
        of_product: `[D, H]`.
        bias: `[H]`.
    """

    of_query: tf.Tensor
    of_key: tf.Tensor
    of_product: tf.Tensor
    bias: tf.Tensor

    def normalised(self, mean: tf.Tensor, scale: tf.Tensor) -> Kernels:
        """Returns the layer whose result is `(s - mean) scale`."""
        of_query, of_key, of_product = (x * scale for x in self[:3])
        return Kernels(of_query, of_key, of_product, (self.bias - mean) * scale)

    def projected(self, weights: tf.Tensor) -> Kernels:
        """Returns the layer whose one result is `sum_h weights s`."""
        column = weights[:, tf.newaxis]
        of_query, of_key, of_product = (project(x, column) for x in self[:3])
        return Kernels(of_query, of_key, of_product, project(self.bias[tf.newaxis], column)[0])


def sum_requests(x: tf.Tensor) -> tf.Tensor:
    """Sum over the first axis."""
    requests = tf.shape(x)[0]
    total = weighted_sum(tf.ones([requests]), tf.reshape(x, [requests, -1]))
    return tf.reshape(total, x.shape[1:])


def candidate_kernels(candidates: tf.Tensor, kernels: Kernels) -> tf.Tensor:
    """Returns every candidate's own kernel over `[k, 1]`, `[R, D + 1, N H]`.

    Args:
        candidates: q, `[R, N, D]`.
        kernels: of the layer.
    """
    count, units = tf.shape(candidates)[1], kernels.bias.shape[0]
    # All candidates in a row: XLA makes no vectors of broadcasts along a few units.
    across = tf.repeat(tf.transpose(candidates, [0, 2, 1]), units, axis=2)
    of_product, of_key = (tf.tile(x, [1, count]) for x in (kernels.of_product, kernels.of_key))
    constant = project(candidates, kernels.of_query) + kernels.bias
    constant = tf.reshape(constant, [-1, 1, count * units])
    return tf.concat([across * of_product + of_key, constant], axis=1)


def pre_activations(
    candidates: tf.Tensor, events: tf.Tensor, valid_events: tf.Tensor, kernels: Kernels
) -> tf.Tensor:
    """Returns s of every pair, `[R, T, N H]`; 0 at padded events.

    Args:
        candidates: q, `[R, N, D]`.
        events: k, `[R, T, D]`; 0 where padded.
        valid_events: `[R, T]`, 1 where valid.
        kernels: of the layer.
    """
    return _pre_activations(candidates, events, valid_events, *kernels)


@tf.custom_gradient
def _pre_activations(
    candidates: tf.Tensor, events: tf.Tensor, valid_events: tf.Tensor, *layer: tf.Tensor
) -> Any:
    kernels = Kernels(*layer)
    affine = tf.concat([events, valid_events[..., tf.newaxis]], axis=-1)
    result = batched_product(affine, candidate_kernels(candidates, kernels))

    def gradient(upstream: tf.Tensor) -> Any:
        of_own = batched_product(tf.transpose(affine, [0, 2, 1]), upstream)
        # Laid out the other way: a product with a transposed matrix takes twice as long.
        own = _event_kernels(candidates, kernels)
        of_candidates, of_kernels = _candidate_gradients(candidates, kernels, of_own)
        return of_candidates, batched_product(upstream, own), None, *of_kernels

    return result, gradient


def _event_kernels(candidates: tf.Tensor, kernels: Kernels) -> tf.Tensor:
    """`candidate_kernels` over k alone, transposed: `[R, N H, D]`."""
    count, units = tf.shape(candidates)[1], kernels.bias.shape[0]
    of_product, of_key = (
        tf.tile(tf.transpose(x), [count, 1]) for x in (kernels.of_product, kernels.of_key)
    )
    return tf.repeat(candidates, units, axis=1) * of_product + of_key


def _candidate_gradients(
    candidates: tf.Tensor, kernels: Kernels, of_own: tf.Tensor
) -> tuple[tf.Tensor, Kernels]:
    """Gradients of `candidate_kernels`, from those of its result, `[R, D + 1, N H]`."""
    width, units = kernels.of_key.shape
    of_own = tf.reshape(of_own, [-1, width + 1, tf.shape(candidates)[1], units])
    constant = tf.reshape(of_own[:, width], [-1, units])
    by_input = tf.reshape(tf.transpose(of_own[:, :width], [1, 0, 2, 3]), [width, -1, units])
    through_product = batched_product(by_input, kernels.of_product[..., tf.newaxis])
    through_query = project(constant, tf.transpose(kernels.of_query))
    flat = tf.transpose(tf.reshape(candidates, [-1, width]))
    both = batched_product(tf.stack([flat, tf.ones_like(flat)], axis=1), by_input)
    of_candidates = through_query + tf.transpose(through_product[..., 0])
    return tf.reshape(of_candidates, tf.shape(candidates)), Kernels(
        of_query=batched_product(flat, constant),
        of_key=both[:, 1],
        of_product=both[:, 0],
        bias=sum_requests(constant),
    )
