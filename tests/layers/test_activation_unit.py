import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden
from tests.layers.conformance import check_layer
from tests.layers.reference import softmax
from tfrec_feedback.layers import ActivationUnit, segment_softmax


def ragged(lengths, rng, width=2):
    values = tf.constant(rng.normal(size=(sum(lengths), width)), tf.float32)
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def with_random_weights(layer, inputs, seed=0):
    layer(inputs)
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        value = rng.normal(size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)
    return layer


def loop(layer, candidates, events, mask=None):
    """Every pair's network on the concatenation as printed; `mask` means training.

    Rows of all pairs go through a layer together, for Dice; activations are ReLU or Dice.
    """
    pairs = [
        (r, n, k)
        for r, keys in enumerate(events)
        for n in range(candidates.shape[1])
        for k in keys.numpy().astype(np.float64)
    ]
    kernels = [(layer.kernel, layer.bias), *((x.kernel, x.bias) for x in layer._deeper)]
    q = candidates.numpy().astype(np.float64)
    hidden = [np.concatenate([q[r, n], k, q[r, n] - k, q[r, n] * k]) for r, n, k in pairs]
    for (kernel, bias), activation in zip(kernels, layer._activations, strict=True):
        s = hidden @ kernel.numpy().astype(np.float64) + bias.numpy()
        hidden = np.maximum(s, 0.0)
        if activation.dice is not None:
            dice, centre = activation.dice, activation.dice.moving_mean.numpy()
            variance = dice.moving_variance.numpy()
            if mask is not None:
                valid = s[[mask[r, n] > 0.0 for r, n, _ in pairs]]
                centre, variance = valid.mean(axis=0), valid.var(axis=0)
            p = 1.0 / (1.0 + np.exp(-(s - centre) / np.sqrt(variance + 1e-9)))
            hidden = p * s + (1.0 - p) * dice.alpha.numpy() * s
    scores = (hidden @ layer._score.kernel.numpy() + layer._score.bias.numpy())[:, 0]
    pooled = np.zeros(q.shape)
    for r, n in np.ndindex(q.shape[:2]):
        own = [i for i, pair in enumerate(pairs) if pair[:2] == (r, n)]
        weights = softmax(scores[own]) if layer.softmax and own else scores[own]
        for weight, i in zip(weights, own, strict=True):
            pooled[r, n] += weight * pairs[i][2]
    return pooled


@pytest.mark.parametrize("form", ["sum", "softmax"])
def test_the_golden_events_are_pooled_by_their_scores(form):
    """A network whose score is k . (0.7, 0.2); the second request's event is no one else's."""
    keys = tf.constant([*golden.ACTIVATION_UNIT["keys"], [5.0, 5.0]])
    inputs = tf.ones([2, 1, 2]), tf.RaggedTensor.from_row_lengths(keys, [2, 1])
    layer = ActivationUnit((1,), "relu", softmax=form == "softmax")
    layer(inputs)
    kernel = np.zeros([8, 1])
    kernel[2:4, 0] = golden.ACTIVATION_UNIT["scores"]  # rows of q, k, q - k, q * k
    layer.kernel.assign(kernel)
    layer._score.kernel.assign([[1.0]])
    np.testing.assert_allclose(layer(inputs)[0, 0], golden.ACTIVATION_UNIT[form], rtol=1e-6)
    expected = 5.0 * (1.0 if form == "softmax" else 4.5)
    np.testing.assert_allclose(layer(inputs)[1, 0], [expected, expected], rtol=1e-6)


@pytest.mark.parametrize("part", range(4))
def test_the_kernels_rows_are_those_of_q_k_their_difference_and_product(part):
    q, k = np.array([2.0, 3.0]), np.array([7.0, 5.0])
    inputs = tf.constant([[q]], tf.float32), tf.constant([[k]], tf.float32)
    inputs = inputs[0], tf.RaggedTensor.from_tensor(inputs[1])
    layer = ActivationUnit((1,), "linear")
    layer(inputs)
    kernel = np.zeros([8, 1])
    kernel[2 * part] = 1.0
    layer.kernel.assign(kernel)
    layer._score.kernel.assign([[1.0]])
    score = [2.0, 7.0, 2.0 - 7.0, 2.0 * 7.0][part]
    np.testing.assert_allclose(layer(inputs)[0, 0], score * k, rtol=1e-6)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    candidates=st.integers(1, 3),
    activation=st.sampled_from(["relu", "dice"]),
    normalize=st.booleans(),
)
def test_ragged_events_give_what_a_loop_over_pairs_gives(
    seed, lengths, candidates, activation, normalize
):
    lengths = [*lengths, 2]
    rng = np.random.default_rng(seed)
    items = tf.constant(rng.normal(size=(len(lengths), candidates, 2)), tf.float32)
    events = ragged(lengths, rng)
    layer = ActivationUnit((4, 3), activation, normalize)
    with_random_weights(layer, (items, events), seed)
    found = layer((items, events))
    np.testing.assert_allclose(found, loop(layer, items, events), rtol=1e-4, atol=1e-4)
    empty = [r for r, length in enumerate(lengths) if length == 0]
    np.testing.assert_array_equal(found.numpy()[empty], 0.0)


def test_in_training_dices_statistics_are_those_of_valid_pairs():
    rng = np.random.default_rng(3)
    mask = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]], np.float32)
    items, events = rng.normal(size=(3, 3, 2)), ragged([2, 3, 0], rng)
    found = []
    for garbage in (0.0, 100.0):  # what stands at padded candidates
        inputs = tf.constant(items + garbage * (1.0 - mask[..., np.newaxis]), tf.float32), events
        layer = with_random_weights(ActivationUnit((4, 3)), inputs)
        result = layer(inputs, mask=tf.constant(mask), training=True).numpy()
        expected = loop(layer, inputs[0], events, mask)
        np.testing.assert_allclose(result[mask > 0], expected[mask > 0], rtol=1e-3, atol=1e-4)
        found.append([result[mask > 0], *(w.numpy() for w in layer.weights)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("lengths", [[0, 0], [2, 0]])
def test_empty_histories_give_zero_and_finite_gradients_in_training(normalize, lengths):
    events = ragged(lengths, np.random.default_rng(0))
    items = tf.Variable(tf.ones([2, 3, 2]))
    layer = ActivationUnit((3,), softmax=normalize)
    with tf.GradientTape() as tape:
        pooled = layer((items, events), mask=tf.ones([2, 3]), training=True)
        loss = tf.reduce_sum(tf.square(pooled))
    np.testing.assert_array_equal(pooled[1], np.zeros([3, 2]))
    gradients = tape.gradient(loss, [items, *layer.trainable_variables])
    np.testing.assert_array_equal(gradients[0][1], np.zeros([3, 2]))
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    if sum(lengths) == 0:
        np.testing.assert_array_equal(layer._activations[0].dice.moving_variance, np.ones(3))


def test_equal_candidates_and_their_order_are_seen_alike():
    rng = np.random.default_rng(0)
    items, events = tf.constant(rng.normal(size=(1, 3, 2)), tf.float32), ragged([4], rng)
    layer = with_random_weights(ActivationUnit((4,)), (items, events))
    straight, reverse = layer((items, events)), layer((items[:, ::-1], events))
    np.testing.assert_allclose(straight, reverse[:, ::-1], rtol=1e-5)


def test_softmax_of_segments_stays_finite_and_skips_empty_segments():
    logits = tf.constant([[0.7], [0.2], [1e30], [-1e30]])
    weights = segment_softmax(logits, tf.constant([0, 0, 2, 2]), 4)
    np.testing.assert_allclose(weights[:, 0], [*golden.ACTIVATION_UNIT["softmax"], 1.0, 0.0])


@pytest.mark.parametrize(
    ("units", "activation", "normalize"), [((4, 3), "dice", False), ((4,), "relu", True)]
)
def test_conformance(units, activation, normalize):
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(3, 2, 2)), tf.float32), ragged([2, 0, 3], rng)
    layer = ActivationUnit(units, activation, normalize)
    assert check_layer(with_random_weights(layer, inputs), inputs).shape == (3, 2, 2)


def test_at_least_one_width_is_needed():
    for units in ((), (0,), (8, -1)):
        with pytest.raises(ValueError, match="units needs at least one width, none below 1"):
            ActivationUnit(units)
