import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import Activation, Dice
from tfrec_feedback.layers.dice import batch_dice


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def reference(s, alpha, weights):
    """Dice of the rows of weight 1, in float64."""
    valid = s[weights > 0.0]
    centre, variance = valid.mean(axis=0), valid.var(axis=0)
    p = sigmoid((s - centre) / np.sqrt(variance + 1e-9))
    return p * s + (1.0 - p) * alpha * s


def plain(s, alpha, mask):
    """Dice in TensorFlow's own operations: autodiff is the referee of the written gradient."""
    mask = mask[:, tf.newaxis] / tf.maximum(tf.reduce_sum(mask), 1.0)
    mean = tf.reduce_sum(mask * s, axis=0)
    variance = tf.reduce_sum(mask * tf.square(s - mean), axis=0)
    p = tf.sigmoid((s - mean) / tf.sqrt(variance + 1e-9))
    return p * s + (1.0 - p) * alpha * s


def test_batch_statistics_by_hand():
    """Values 1, 3 and 5: mean 3, variance 8 / 3; with alpha = 0.5 the middle one is 3 * 0.75."""
    s, layer = tf.constant([[1.0], [3.0], [5.0]]), Dice(momentum=0.9)
    layer((s, None))
    layer.alpha.assign([0.5])
    gate = sigmoid(2.0 / np.sqrt(8.0 / 3.0))  # 0.7729
    expected = [[1.0 - gate + 0.5 * gate], [2.25], [5.0 * gate + 2.5 * (1.0 - gate)]]
    np.testing.assert_allclose(layer((s, None), training=True), expected, rtol=1e-5)
    # The first batch sets the averages; of the second they take 0.1 / (1 - 0.9^2).
    np.testing.assert_allclose(layer.moving_mean, [3.0], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, [8.0 / 3.0], rtol=1e-5)
    layer((tf.constant([[22.0], [22.0]]), None), training=True)
    np.testing.assert_allclose(layer.moving_mean, [3.0 + 19.0 * 0.1 / 0.19], rtol=1e-5)
    variance = (1.0 - 0.1 / 0.19) * 8.0 / 3.0
    np.testing.assert_allclose(layer.moving_variance, [variance], rtol=1e-4)


def test_after_equal_batches_serving_answers_as_training_did():
    """However few: a short training must not leave the averages near their start."""
    s, layer = tf.constant(np.random.default_rng(0).normal(3.0, 0.1, (8, 2)), tf.float32), Dice()
    for _ in range(2):
        trained = layer((s, None), training=True)
        np.testing.assert_allclose(layer((s, None)), trained, rtol=1e-4)


def test_outside_training_the_moving_averages_are_used_and_do_not_move():
    s, layer = tf.constant([[1.0, -2.0]]), Dice()
    layer((s, None))
    layer.set_weights([np.array(x) for x in ([0.5, 0.0], [1.0, 0.0], [4.0, 4.0], 1.0)])
    # The first stands at its mean: p = 0.5. The second is one deviation below: p = 0.268941.
    np.testing.assert_allclose(layer((s, None)), [[0.75, -2.0 * 0.26894142]], rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [1.0, 0.0])
    np.testing.assert_array_equal(layer.moving_variance, [4.0, 4.0])


@settings(max_examples=25)
@given(seed=st.integers(0, 999), shift=st.sampled_from([0.0, 20.0]))
def test_padded_rows_count_in_no_statistic(seed, shift):
    rng = np.random.default_rng(seed)
    s = rng.normal(shift, 2.0, (3, 4, 2)).astype(np.float32)
    mask = (rng.random((3, 4)) < 0.6).astype(np.float32)
    mask[0, :2] = 1.0
    alone, padded = Dice(), Dice()
    valid = s[mask > 0.0]
    found = padded((s + 1e3 * (1.0 - mask[..., np.newaxis]), mask), training=True).numpy()
    np.testing.assert_allclose(
        found[mask > 0.0], alone((valid, None), training=True), rtol=1e-4, atol=1e-4
    )
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(padded, name), getattr(alone, name), rtol=1e-4)
    np.testing.assert_allclose(padded.moving_mean, valid.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(padded.moving_variance, valid.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_written_gradient_is_that_of_central_differences(seed):
    rng = np.random.default_rng(seed)
    s, alpha = rng.normal(1.0, 2.0, (6, 2)), rng.normal(size=2)
    weights = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    upstream = rng.normal(size=s.shape) * weights[:, np.newaxis]
    inputs = [tf.Variable(x, dtype=tf.float32) for x in (s, alpha)]
    shares = tf.constant(weights[np.newaxis] / weights.sum(), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(batch_dice(*inputs, shares)[0] * upstream.astype(np.float32))
    of_s, of_alpha = tape.gradient(loss, inputs)

    def slope(change):
        """Of `change`, which moves one of the inputs by a step."""
        values = [np.sum(reference(*change(step), weights) * upstream) for step in (1e-5, -1e-5)]
        return (values[0] - values[1]) / 2e-5

    for at in np.ndindex(s.shape):
        unit = np.zeros_like(s)
        unit[at] = 1.0
        expected = slope(lambda step, unit=unit: (s + step * unit, alpha))
        assert of_s[at].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    for d, unit in enumerate(np.eye(2)):
        expected = slope(lambda step, unit=unit: (s, alpha + step * unit))
        assert of_alpha[d].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    np.testing.assert_array_equal(of_s[2], [0.0, 0.0])  # the padded row


@settings(max_examples=20)
@given(seed=st.integers(0, 999), rows=st.integers(2, 12))
def test_the_written_gradient_is_that_of_tensorflow(seed, rows):
    rng = np.random.default_rng(seed)
    s, upstream = (tf.constant(rng.normal(size=(rows, 3)), tf.float32) for _ in range(2))
    mask = tf.constant(rng.random(rows) < 0.7, tf.bool)
    mask = tf.cast(tf.concat([[True, True], mask[2:]], axis=0), tf.float32)
    upstream *= mask[:, tf.newaxis]
    shares = mask[tf.newaxis] / tf.reduce_sum(mask)
    alpha, found = tf.constant([0.3, -0.5, 1.0]), []
    for function, weights in ((lambda *x: batch_dice(*x)[0], shares), (plain, mask)):
        with tf.GradientTape() as tape:
            tape.watch([s, alpha])
            result = function(s, alpha, weights)
        found.append([result, *tape.gradient(result, [s, alpha], upstream)])
    for written, derived in zip(*found, strict=True):
        np.testing.assert_allclose(written, derived, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_without_valid_rows_moves_nothing_and_stays_finite(rows):
    s, mask = tf.Variable(np.ones([rows, 2], np.float32)), tf.zeros([rows])
    layer = Dice()
    with tf.GradientTape() as tape:
        result = layer((s, mask), training=True)
        loss = tf.reduce_sum(result)
    np.testing.assert_array_equal(layer.moving_mean, [0.0, 0.0])
    np.testing.assert_array_equal(layer.moving_variance, [1.0, 1.0])
    assert result.shape == (rows, 2)
    assert np.isfinite(result).all()
    for gradient in tape.gradient(loss, [s, layer.alpha]):
        assert np.isfinite(gradient).all()


def test_equal_rows_have_finite_gradients():
    s, layer = tf.Variable(np.full([4, 2], 3.0, np.float32)), Dice()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer((s, None), training=True))
    np.testing.assert_allclose(loss, 8 * 3.0 * 0.5, rtol=1e-6)
    # Each row alone would also move the mean: together only the factor p = 0.5 is left.
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(loss, s)), 4.0, rtol=1e-3)


def test_training_in_a_graph_moves_the_averages_too():
    s, eager, traced = tf.constant([[1.0, 2.0], [3.0, 5.0]]), Dice(), Dice()
    expected = eager((s, None), training=True)
    found = tf.function(lambda x: traced((x, None), training=True))(s)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(traced.moving_mean, [2.0, 3.5], rtol=1e-5)
    np.testing.assert_allclose(traced.moving_variance, eager.moving_variance, rtol=1e-6)


def test_conformance():
    s = tf.random.stateless_normal([2, 3, 4], (0, 1))
    layer = Dice(momentum=0.8)
    layer((s, None), training=True)
    check_layer(layer, (s, tf.ones([2, 3])))
    assert layer.get_config()["momentum"] == 0.8
    for function in ("dice", "relu", tf.keras.activations.tanh):
        check_layer(Activation(function), (s, None))


def test_activations_by_name():
    s = tf.constant([[-1.0, 2.0]])
    np.testing.assert_array_equal(Activation("relu")((s, None)), [[0.0, 2.0]])
    np.testing.assert_allclose(Activation("tanh")((s, None)), np.tanh(s), rtol=1e-6)
    dice = Activation("dice")
    np.testing.assert_array_equal(dice((s, None)), Dice()((s, None)))
    assert [weight.name.split("/")[-1] for weight in dice.trainable_weights] == ["alpha:0"]
