import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import CALIBRATION, PAIRS, REWEIGHTING
from tests.losses.examples import BASES, requests, with_gradient
from tfrec_feedback.losses import (
    BPRLoss,
    FeedbackCrossEntropy,
    Reweighted,
    SquareLoss,
    calibrated_logits,
    reweighting_weights,
)

P = np.float32(REWEIGHTING["probabilities"])
LOGITS, LABELS = tf.constant(np.log(P / (1 - P))), tf.constant(REWEIGHTING["labels"])
BETA = REWEIGHTING["beta"]
NAMES = list(BASES)


def test_golden_weights_and_means():
    np.testing.assert_allclose(
        reweighting_weights(LOGITS, LABELS, BETA), REWEIGHTING["weights"], rtol=1e-6
    )
    loss = Reweighted(FeedbackCrossEntropy(), BETA)
    np.testing.assert_allclose(loss.factors(LABELS, LOGITS), REWEIGHTING["weights"], rtol=1e-6)
    np.testing.assert_allclose(loss.call(LABELS, LOGITS), REWEIGHTING["weighted"], rtol=1e-5)
    value, gradient = with_gradient(loss, LABELS, LOGITS)
    np.testing.assert_allclose(value, REWEIGHTING["mean"], rtol=1e-6)
    np.testing.assert_allclose(gradient, REWEIGHTING["gradient"], rtol=1e-5)
    plain = Reweighted(FeedbackCrossEntropy(), 0.0)
    np.testing.assert_allclose(plain(LABELS, LOGITS), REWEIGHTING["plain"], rtol=1e-6)
    positives = Reweighted(FeedbackCrossEntropy(), BETA, negatives="plain")
    np.testing.assert_allclose(positives(LABELS, LOGITS), REWEIGHTING["plain_negatives"], rtol=1e-6)


def test_golden_square_and_pairwise_losses():
    square = Reweighted(SquareLoss(), BETA)
    np.testing.assert_allclose(square(LABELS, LOGITS), REWEIGHTING["reweighted_square"], rtol=1e-5)
    logits = tf.stack([PAIRS["positive"], PAIRS["negative"]], axis=1)
    labels, loss = tf.constant([[1.0, 0.0]] * 4), Reweighted(BPRLoss(), 0.25)
    np.testing.assert_allclose(loss(labels, logits), PAIRS["reweighted"], rtol=1e-6)
    factors = loss.factors(labels, logits)
    np.testing.assert_allclose(factors[:, 0], PAIRS["weights"], rtol=1e-6)
    np.testing.assert_array_equal(factors[:, 1], 1.0)


def test_pairs_are_reweighted_one_by_one():
    labels, logits = tf.constant([[1.0, 0.0, 0.0]]), tf.constant([[0.5, -1.0, 2.0]])
    gaps = np.array([1.5, -1.5])
    p = 1 / (1 + np.exp(-gaps))
    value, gradient = with_gradient(Reweighted(BPRLoss(), 0.7), labels, logits)
    np.testing.assert_allclose(value, np.mean(p**0.7 * np.logaddexp(0, -gaps)), rtol=1e-5)
    parts = p**0.7 * (1 - p) / 2
    np.testing.assert_allclose(gradient, [[-parts.sum(), *parts]], rtol=1e-5)


@given(
    logit=st.floats(-50, 50, width=32), label=st.integers(0, 2), beta=st.sampled_from([0, 0.2, 1])
)
def test_weights_are_powers_of_the_probability_of_the_label(logit, label, beta):
    p = 1 / (1 + np.exp(-np.float64(logit if label == 1 else -logit)))
    found = reweighting_weights(tf.constant([logit]), tf.constant([label]), beta)
    np.testing.assert_allclose(found, [p**beta], rtol=1e-4)


def test_weights_have_no_gradient():
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(reweighting_weights(logits, LABELS, BETA))
    assert tape.gradient(total, logits) is None


def test_golden_calibration_undoes_the_sharpening():
    logit = tf.constant(CALIBRATION["logit"])
    np.testing.assert_allclose(tf.sigmoid(logit), CALIBRATION["probability"], rtol=1e-6)
    calibrated = calibrated_logits(logit, CALIBRATION["beta"])
    np.testing.assert_allclose(tf.sigmoid(calibrated), CALIBRATION["rate"], rtol=1e-6)
    # That logit is where the loss of a cell with this rate is stationary.
    labels = tf.constant([1.0] + [0.0] * 4)
    with tf.GradientTape() as tape:
        tape.watch(logit)
        loss = Reweighted(FeedbackCrossEntropy(), CALIBRATION["beta"])(labels, tf.fill([5], logit))
    assert abs(float(tape.gradient(loss, logit))) < 1e-7


@pytest.mark.parametrize("beta", [1.0, 1.5, -0.1, float("nan")])
def test_no_calibration_without_a_finite_optimum(beta):
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\)"):
        calibrated_logits(tf.zeros([1]), beta)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["sum", "auto", "none"])
@pytest.mark.parametrize("graph", [False, True])
def test_at_beta_0_loss_and_gradient_equal_the_base_to_the_bit(name, reduction, graph):
    labels, logits, shares = requests(0)
    base = BASES[name](reduction=reduction)
    found = []
    for loss in (base, Reweighted(base, 0.0)):

        def call(labels, logits, shares, loss=loss):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(labels, logits, shares)
            return value, tape.gradient(value, logits)

        found.append((tf.function(call) if graph else call)(labels, logits, shares))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["cross_entropy", "square", "hinge"]))
def test_factors_of_any_pointwise_loss_are_those_of_cross_entropy(seed, name):
    labels, logits, shares = requests(seed)
    shares = tf.ones_like(shares)
    loss = Reweighted(BASES[name](), 0.4)
    factors = loss.factors(labels, logits, shares)
    expected = reweighting_weights(tf.reshape(logits, [-1]), tf.reshape(labels, [-1]), 0.4)
    np.testing.assert_allclose(np.ravel(factors), expected, rtol=1e-5)
    mean = np.mean(factors * loss.base.call(labels, logits))
    np.testing.assert_allclose(loss(labels, logits, shares), mean, rtol=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_what_weighs_nothing_does_not_matter(seed, name):
    labels, logits, shares = requests(seed)
    padded = shares.numpy() == 0
    garbage = np.random.default_rng(seed).choice([-1e4, 1e4], padded.shape)
    other = tf.where(padded, np.float32(garbage), logits), tf.where(padded, 1.0, labels)
    loss = Reweighted(BASES[name](reduction="sum"), 0.3)
    first = with_gradient(loss, labels, logits, shares)
    second = with_gradient(loss, other[1], other[0], shares)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_degenerate_batches_give_finite_losses_and_gradients(name, beta):
    loss = Reweighted(BASES[name](reduction="sum"), beta)
    labels, logits, shares = requests(7)
    none = tf.zeros([0, 4])
    for batch in ((labels, logits, 0.0 * shares), (none, none, none)):
        value, gradient = with_gradient(loss, *batch)
        assert value == 0.0 and not gradient.any()
    for extreme in (1e4 * (2 * labels - 1), 1e4 * (1 - 2 * labels)):
        value, gradient = with_gradient(loss, labels, extreme, shares)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}])
def test_graphs_and_xla_give_what_eager_code_gives(name, options):
    loss = Reweighted(BASES[name](reduction="sum"), 0.3, negatives="plain")
    batch = requests(1)
    np.testing.assert_allclose(tf.function(loss, **options)(*batch), loss(*batch), rtol=1e-5)


def test_config_round_trip():
    loss = Reweighted(SquareLoss(reduction="sum"), 0.3, "plain", name="own")
    twin = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert twin.get_config() == loss.get_config()
    assert (twin.beta, twin.negatives, twin.reduction, twin.name) == (0.3, "plain", "sum", "own")
    assert isinstance(twin.base, SquareLoss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": None}, "base must be an ElementLoss, got NoneType"),
        ({"beta": -0.1}, "beta must be a finite number >= 0, got -0.1"),
        ({"beta": float("inf")}, "beta must be a finite number >= 0"),
        ({"negatives": "none"}, "negatives must be one of .*'reweighted', 'plain'.*'none'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Reweighted(**{"base": SquareLoss(), **options})
