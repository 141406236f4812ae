"""Padded events through the activation unit, compiled, against ragged ones, not compiled."""

import numpy as np
import pytest
import tensorflow as tf

from tfrec_feedback.layers import ActivationUnit
from tfrec_feedback.layers.padded_attention import PaddedEvents, bent_sum, standardised
from tfrec_feedback.layers.pair_layer import Kernels, pre_activations
from tfrec_feedback.layers.pair_moments import pair_moments

WIDTH = 4


def example(lengths, count, seed=0, shift=1.0):
    """Candidates with garbage at padding, their mask, padded and ragged events."""
    rng = np.random.default_rng(seed)
    lengths, longest = np.array(lengths), max([*lengths, 1])
    valid = (np.arange(longest) < lengths[:, np.newaxis]).astype(np.float32)
    events = rng.normal(shift, 1.0, (*valid.shape, WIDTH)).astype(np.float32)
    mask = np.ones((len(lengths), count), np.float32)
    mask[-1, 1:] = 0.0
    candidates = rng.normal(0.5, 1.0, (*mask.shape, WIDTH)) + 50.0 * (1.0 - mask[..., np.newaxis])
    ragged = tf.RaggedTensor.from_row_lengths(events[valid > 0.0], lengths)
    padded = PaddedEvents(tf.constant(events * valid[..., np.newaxis]), tf.constant(valid))
    return tf.constant(candidates, tf.float32), tf.constant(mask), padded, ragged


def with_random_weights(layer, inputs, seed=0):
    layer(inputs)
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        value = rng.normal(size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)
    return layer


def outcome(layer, candidates, events, mask, compiled):
    """The pooled events, all gradients, and the weights after the averages have moved."""

    upstream = np.random.default_rng(2).normal(size=candidates.shape).astype(np.float32)

    @tf.function(jit_compile=compiled)
    def run(candidates):
        with tf.GradientTape() as tape:
            tape.watch(candidates)
            pooled = layer((candidates, events), mask=mask, training=True) * mask[..., tf.newaxis]
            loss = tf.reduce_sum(pooled * upstream)
        return pooled, *tape.gradient(loss, [candidates, *layer.trainable_weights])

    start = layer.get_weights()
    found = [x.numpy() for x in run(candidates)] + layer.get_weights()
    layer.set_weights(start)
    return found


@pytest.mark.parametrize(
    ("units", "activation", "normalize", "lengths", "count"),
    [
        ((7,), "dice", False, [3, 0, 6, 1, 2], 1),
        ((7,), "dice", False, [3, 0, 6, 1, 2], 3),
        ((7,), "dice", False, [3, 0, 6, 1, 2], 5),
        ((7,), "dice", False, [0, 0], 5),
        ((7,), "dice", False, [4], 1),
        ((7,), "dice", True, [3, 0, 6], 5),
        ((7, 3), "dice", False, [3, 0, 6], 3),
        ((7,), "relu", True, [3, 0, 6], 3),
    ],
)
def test_padded_events_give_what_ragged_ones_give(units, activation, normalize, lengths, count):
    candidates, mask, padded, ragged = example(lengths, count)
    layer = ActivationUnit(units, activation, normalize)
    with_random_weights(layer, (candidates, ragged))
    expected = outcome(layer, candidates, ragged, mask, compiled=False)
    found = outcome(layer, candidates, padded, mask, compiled=True)
    for one, other in zip(found, expected, strict=True):
        scale = 1.0 + np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, rtol=1e-5, atol=2e-5)


def test_outside_training_padded_events_read_the_moving_averages():
    candidates, _, padded, ragged = example([3, 0, 2], 5)
    layer = with_random_weights(ActivationUnit((7,)), (candidates, ragged))
    expected = layer((candidates, ragged))
    np.testing.assert_allclose(layer((candidates, padded)), expected, rtol=1e-4, atol=1e-4)


def pairs_of(candidates, mask, events, kernels):
    """s of every valid pair in float64, from the pairs themselves."""
    q, k = candidates.numpy().astype(np.float64), events.flat_values.numpy().astype(np.float64)
    of_query, of_key, of_product, bias = (x.numpy().astype(np.float64) for x in kernels)
    return np.array(
        [
            q[r, n] @ of_query + k[r, t] @ of_key + (q[r, n] * k[r, t]) @ of_product + bias
            for r, n in np.argwhere(mask.numpy() > 0.0)
            for t in np.flatnonzero(events.valid[r])
        ]
    )


def random_kernels(units=3, seed=1):
    rng = np.random.default_rng(seed)
    shapes = [(WIDTH, units)] * 3 + [(units,)]
    return Kernels(*(tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes))


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_moments_of_candidates_and_events_are_those_of_all_pairs(shift):
    """Also where means are many times the deviation: squares would cancel."""
    candidates, mask, events, _ = example([3, 0, 6, 2], 5, shift=shift)
    kernels = random_kernels()
    mean, variance = pair_moments(candidates, events.flat_values, mask, events.valid, kernels)
    s = pairs_of(candidates, mask, events, kernels)
    np.testing.assert_allclose(mean, s.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(variance, s.var(axis=0), rtol=1e-4)


def test_without_any_pair_there_is_no_variance():
    candidates, mask, events, _ = example([0, 0], 4)
    _, variance = pair_moments(candidates, events.flat_values, mask, events.valid, random_kernels())
    np.testing.assert_array_equal(variance, np.zeros(3))


def test_every_pair_meets_the_layer_of_its_candidate():
    candidates, mask, events, _ = example([3, 0, 2], 2)
    kernels = random_kernels()
    s = pre_activations(candidates, events.flat_values, events.valid, kernels).numpy()
    s = s.reshape([3, 3, 2, 3])
    rows = [s[r, t, n] for r, n in np.argwhere(mask.numpy() > 0.0) for t in range([3, 0, 2][r])]
    np.testing.assert_allclose(rows, pairs_of(candidates, mask, events, kernels), rtol=1e-4)
    np.testing.assert_array_equal(s[1], 0.0)  # padded events


def assert_written_gradients_are_derived_ones(written, derived, inputs):
    found = []
    for function in (written, derived):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.add_n([tf.reduce_sum(tf.sin(x)) for x in function(*inputs)])
        found.append([loss, *tape.gradient(loss, inputs)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_the_written_gradient_of_the_layer_is_tensorflows():
    candidates, _, events, _ = example([3, 0, 2], 2)

    def derived(q, k, *kernels):
        of_query, of_key, of_product, bias = kernels
        pairs = q[:, tf.newaxis] * k[:, :, tf.newaxis]
        own = tf.tensordot(q, of_query, 1)[:, tf.newaxis] + bias
        s = own + tf.tensordot(k, of_key, 1)[:, :, tf.newaxis] + tf.tensordot(pairs, of_product, 1)
        return [s * events.valid[..., tf.newaxis, tf.newaxis]]

    def written(q, k, *kernels):
        s = pre_activations(q, k, events.valid, Kernels(*kernels))
        return [s * events.valid[..., tf.newaxis]]

    inputs = [tf.minimum(candidates, 2.0), events.flat_values, *random_kernels()]
    assert_written_gradients_are_derived_ones(written, derived, inputs)


def test_the_written_gradient_of_standardised_pairs_is_tensorflows():
    """Through mean and variance as well, which are results of their own."""
    rng = np.random.default_rng(0)
    s = tf.constant(rng.normal(1.0, 2.0, (2, 3, 2 * 4)), tf.float32)
    shares = tf.constant(rng.random((2, 3, 2)), tf.float32)
    shares /= tf.reduce_sum(shares)

    def derived(s):
        rows, weights = tf.reshape(s, [-1, 4]), tf.reshape(shares, [-1, 1])
        mean = tf.reduce_sum(weights * rows, 0)
        variance = tf.reduce_sum(weights * tf.square(rows - mean), 0)
        x = (rows - mean) / tf.sqrt(variance + 1e-9)
        return tf.reshape(x, tf.shape(s)), mean, variance

    written = lambda s: standardised(s, shares, 4)  # noqa: E731
    assert_written_gradients_are_derived_ones(written, derived, [s])


def test_the_written_gradient_of_the_bent_sum_is_tensorflows():
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 2 * 4), (4,), (4,)]
    inputs = [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]

    def derived(x, slope, level):
        rows = tf.reshape(x, [2, 3, 2, 4])
        return [tf.reduce_sum(tf.tanh(rows / 2.0) * (slope * rows + level), -1)]

    assert_written_gradients_are_derived_ones(lambda *x: [bent_sum(*x)], derived, inputs)
