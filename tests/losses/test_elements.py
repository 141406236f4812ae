import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import PAIRS, REWEIGHTING
from tests.losses.examples import BASES, requests, with_gradient
from tfrec_feedback.losses import BPRLoss, ElementLoss, FeedbackCrossEntropy, SquareLoss

NAMES = list(BASES)


class KerasFeedbackCrossEntropy(tf.keras.losses.Loss):
    """The same loss with Keras' own weighting and reduction."""

    def call(self, y_true, y_pred):
        types = tf.cast(y_true, tf.int32)
        weights = tf.gather(tf.constant([1.5, 2.0, 10.0]), types)
        clicked = tf.cast(tf.equal(types, 1), y_pred.dtype)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=clicked, logits=y_pred)
        return losses * tf.cast(weights, losses.dtype)


@pytest.mark.parametrize("reduction", ["sum", "auto", "sum_over_batch_size", "none"])
@pytest.mark.parametrize(
    ("weighted", "graph"),
    # Graphs multiply weights that broadcast in an order of their own.
    [(None, 0), ("rows", 0), ("candidates", 0), ("scalar", 0), (None, 1), ("candidates", 1)],
)
def test_cross_entropy_reduces_to_the_bit_as_keras_does(reduction, weighted, graph):
    _, logits, shares = requests(0)
    types = tf.constant(np.random.default_rng(1).integers(0, 3, logits.shape), tf.float32)
    weights = {None: None, "rows": shares[:, 0], "candidates": shares, "scalar": 0.3}[weighted]
    ours = FeedbackCrossEntropy(2.0, 1.5, 10.0, reduction=reduction)
    theirs = KerasFeedbackCrossEntropy(reduction=reduction)
    found = []
    for loss in (ours, theirs):

        def call(types, logits, weights, loss=loss):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(types, logits, weights)
            return value, tape.gradient(value, logits)

        found.append((tf.function(call) if graph else call)(types, logits, weights))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_cross_entropy_knows_clicks_and_its_confidence_without_the_weights_of_feedbacks():
    types, logits = tf.constant([1.0, 0.0, 2.0]), tf.constant([0.5, -2.0, 1.0])
    found = FeedbackCrossEntropy(3.0, 1.0, 10.0).elements(types, logits)
    np.testing.assert_array_equal(found.positives, [True, False, False])
    np.testing.assert_allclose(tf.exp(found.confidence), tf.sigmoid([0.5, 2.0, -1.0]), rtol=1e-6)
    np.testing.assert_allclose(found.losses, -found.confidence * [3.0, 1.0, 10.0], rtol=1e-6)


def test_golden_square_losses():
    p = np.float32(REWEIGHTING["probabilities"])
    logits, labels = tf.constant(np.log(p / (1 - p))), tf.constant(REWEIGHTING["labels"])
    np.testing.assert_allclose(SquareLoss().call(labels, logits), REWEIGHTING["square"], rtol=1e-5)


def test_hinge_by_hand():
    labels, logits = tf.constant([1, 1, 0, 2]), tf.constant([0.25, 3.0, 0.25, -4.0])
    np.testing.assert_array_equal(BASES["hinge"]().call(labels, logits), [0.75, 0.0, 1.25, 0.0])


def test_golden_pairwise_losses():
    logits = tf.stack([PAIRS["positive"], PAIRS["negative"]], axis=1)
    labels = tf.constant([[1.0, 0.0]] * 4)
    np.testing.assert_allclose(BPRLoss().call(labels, logits)[:, 0], PAIRS["losses"], rtol=1e-6)
    np.testing.assert_allclose(BPRLoss()(labels, logits), PAIRS["mean"], rtol=1e-6)


def plain_pairwise(labels, logits, weights):
    """A loop over pairs, from the definition."""
    losses, counted = np.zeros(labels.shape), np.zeros(labels.shape)
    for row, column in np.ndindex(*labels.shape):
        others = (labels[row] == 0) & (weights[row] > 0)
        if labels[row, column] == 1 and weights[row, column] > 0 and others.any():
            gaps = logits[row, column] - logits[row, others]
            losses[row, column] = np.mean(np.logaddexp(0, -gaps))
            counted[row, column] = weights[row, column]
    return losses, counted


@given(seed=st.integers(0, 10**6))
def test_pairwise_losses_equal_a_plain_loop(seed):
    labels, logits, shares = (x.numpy() for x in requests(seed))
    losses, counted = plain_pairwise(labels, logits, shares)
    found = BPRLoss().elements(labels, logits, shares)
    np.testing.assert_allclose(found.losses * found.weights, losses * counted, atol=1e-6)
    np.testing.assert_array_equal(found.weights > 0, counted > 0)
    expected = (losses * counted).sum() / counted.sum() if counted.any() else 0.0
    np.testing.assert_allclose(BPRLoss()(labels, logits, shares), expected, rtol=1e-4, atol=1e-7)


def test_a_dislike_is_a_negative_of_a_pair():
    labels, logits = tf.constant([[1.0, 2.0]]), tf.constant([[1.2, 0.3]])
    np.testing.assert_allclose(BPRLoss()(labels, logits), PAIRS["losses"][0], rtol=1e-6)


def test_a_click_without_an_unclick_is_no_element_of_a_pairwise_loss():
    labels, logits = tf.constant([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]), tf.zeros([3, 2])
    found = BPRLoss().elements(labels, logits)
    np.testing.assert_array_equal(found.weights, [[0, 0], [0, 0], [1, 0]])
    unpaired = tf.constant([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    assert not np.any(BPRLoss().elements(labels, logits, unpaired).weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_sum_with_shares_is_a_mean(name):
    labels, logits, _ = requests(3)
    whole = BASES[name](reduction="sum")(labels, logits, tf.fill(logits.shape, 1 / 30))
    elements = BASES[name]().elements(labels, logits)
    expected = np.sum(elements.losses * elements.weights) / 30
    np.testing.assert_allclose(whole, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["square", "hinge", "bpr"])
def test_the_default_is_the_weighted_mean(name):
    labels, logits, shares = requests(4)
    found = BASES[name]().elements(labels, logits, shares)
    losses, weights = found.losses.numpy(), found.weights.numpy()
    expected = np.average(losses[weights > 0], weights=weights[weights > 0])
    np.testing.assert_allclose(BASES[name]()(labels, logits, 7.0 * shares), expected, rtol=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_what_weighs_nothing_does_not_matter(seed, name):
    labels, logits, shares = requests(seed)
    rng, padded = np.random.default_rng(seed), shares.numpy() == 0
    other_labels = tf.where(padded, np.float32(rng.integers(0, 3, padded.shape)), labels)
    garbage = np.float32(rng.choice([-1e4, 1e4], padded.shape))
    other_logits = tf.where(padded, garbage, logits)
    first = with_gradient(BASES[name](), labels, logits, shares)
    second = with_gradient(BASES[name](), other_labels, other_logits, shares)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.any(second[1][padded])


@pytest.mark.parametrize("name", ["square", "hinge", "bpr"])
def test_not_even_nan_reaches_the_loss_from_padding(name):
    labels, logits, shares = requests(5)
    logits = tf.where(shares > 0, logits, np.nan)
    value, gradient = with_gradient(BASES[name](), labels, logits, shares)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_finite_losses_and_gradients(name):
    labels, _, shares = requests(6)
    for logits in (1e4 * (2 * labels - 1), 1e4 * (1 - 2 * labels), tf.fill(labels.shape, 1e4)):
        value, gradient = with_gradient(BASES[name](reduction="sum"), labels, logits, shares)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["sum", "auto"])
def test_without_elements_or_weights_loss_and_gradient_are_0(name, reduction):
    loss = BASES[name](reduction=reduction)
    labels, logits, shares = requests(7)
    none = tf.zeros([0, 4])
    for batch in ((labels, logits, 0.0 * shares), (none, none, none)):
        value, gradient = with_gradient(loss, *batch)
        assert value == 0.0 and not gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_config_round_trip(name):
    batch = requests(8)
    loss = BASES[name](reduction="sum", name="own")
    twin = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert type(twin) is BASES[name] and twin.name == "own"
    np.testing.assert_array_equal(twin(*batch), loss(*batch))


def test_an_element_loss_has_to_say_what_its_elements_are():
    with pytest.raises(NotImplementedError, match="ElementLoss must define `elements`"):
        ElementLoss()(tf.zeros([1]), tf.zeros([1]))
