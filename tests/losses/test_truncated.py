import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import DROP_SCHEDULE, PAIRS, REWEIGHTING, TRUNCATION
from tests.losses.examples import BASES, requests, with_gradient
from tfrec_feedback.losses import (
    BPRLoss,
    FeedbackCrossEntropy,
    SquareLoss,
    Truncated,
    truncation_weights,
)

LOGITS, LABELS = tf.constant(TRUNCATION["logits"]), tf.constant(TRUNCATION["labels"])
NAMES = list(BASES)


def truncated(base, rate=0.2, **options):
    """A loss at its largest rate."""
    loss = Truncated(base, max_rate=rate, num_steps=1, **options)
    loss.step.assign(1)
    return loss


@pytest.mark.parametrize("case", TRUNCATION["cases"])
def test_golden_means(case):
    rate, base, rounding, dropped, mean, _ = case
    loss = truncated(FeedbackCrossEntropy(), rate, drop_base=base, rounding=rounding)
    np.testing.assert_allclose(loss(LABELS, LOGITS), mean, rtol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(loss.factors(LABELS, LOGITS) == 0), dropped)
    # The same mean, from a sum with shares.
    summed = FeedbackCrossEntropy(reduction="sum")
    loss = truncated(summed, rate, drop_base=base, rounding=rounding)
    np.testing.assert_allclose(loss(LABELS, LOGITS, tf.fill([6], 1 / 6)), mean, rtol=1e-6)


def test_golden_square_and_pairwise_losses():
    p = np.float32(REWEIGHTING["probabilities"])
    labels = tf.constant(REWEIGHTING["labels"])
    found = truncated(SquareLoss(), 0.25)(labels, tf.constant(np.log(p / (1 - p))))
    np.testing.assert_allclose(found, REWEIGHTING["truncated_square"], rtol=1e-5)
    logits = tf.stack([PAIRS["positive"], PAIRS["negative"]], axis=1)
    loss, labels = truncated(BPRLoss(), 0.25), tf.constant([[1.0, 0.0]] * 4)
    np.testing.assert_allclose(loss(labels, logits), PAIRS["truncated"], rtol=1e-6)
    assert np.argwhere(loss.factors(labels, logits) == 0).tolist() == [[PAIRS["dropped"], 0]]


def test_the_rate_follows_the_owners_counter():
    step = tf.Variable(0, dtype=tf.int64)
    loss = Truncated(FeedbackCrossEntropy(), 0.2, 5, step=step)
    assert loss.step is step
    for expected in DROP_SCHEDULE["paper"]:
        np.testing.assert_allclose(loss.drop_rate(), expected, rtol=1e-12)
        step.assign_add(1)
    assert Truncated(FeedbackCrossEntropy(), 0.2, 5, schedule="code", step=step).drop_rate() == 0.2


def test_a_graph_reads_the_counter_and_leaves_it_alone():
    loss = Truncated(FeedbackCrossEntropy(), 0.2, 1)
    graph = tf.function(lambda: loss(LABELS, LOGITS))
    before = float(graph())
    assert int(loss.step) == 0
    loss.step.assign(1)
    assert float(graph()) == pytest.approx(TRUNCATION["cases"][1][4]) != before
    assert not loss.step.trainable
    assert loss.step.aggregation == tf.VariableAggregation.ONLY_FIRST_REPLICA


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["sum", "auto", "none"])
@pytest.mark.parametrize("graph", [False, True])
def test_at_rate_0_loss_and_gradient_equal_the_base_to_the_bit(name, reduction, graph):
    labels, logits, shares = requests(0)
    base = BASES[name](reduction=reduction)
    found = []
    for loss in (base, Truncated(base)):

        def call(labels, logits, shares, loss=loss):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(labels, logits, shares)
            return value, tape.gradient(value, logits)

        found.append((tf.function(call) if graph else call)(labels, logits, shares))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_is_the_mean_over_what_is_kept(seed, name):
    labels, logits, shares = requests(seed)
    base = BASES[name](reduction="sum")
    found = base.elements(labels, logits, shares)
    flat = [np.ravel(part) for part in found]
    keep = truncation_weights(flat[0], flat[2].astype(int), 0.2, weights=flat[1]).numpy()
    loss = truncated(base)
    np.testing.assert_array_equal(np.ravel(loss.factors(labels, logits, shares)), keep)
    kept = keep * flat[1]
    mean = (kept * flat[0]).sum() / kept.sum() if kept.any() else 0.0
    value = loss(labels, logits, shares)
    np.testing.assert_allclose(value, mean * flat[1].sum(), rtol=1e-4, atol=1e-7)
    # Half the shares, as of one of two micro-batches, give half the loss.
    np.testing.assert_allclose(loss(labels, logits, shares / 2), value / 2, rtol=1e-5)
    if name != "cross_entropy":  # which divides by instances, whatever they weigh
        value = truncated(BASES[name]())(labels, logits, shares)
        np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-7)


def test_cross_entropy_without_weights_is_the_mean_over_what_is_kept():
    labels, logits, _ = requests(2)
    loss = truncated(FeedbackCrossEntropy(1.0, 1.0, 3.0))
    keep = loss.factors(labels, logits).numpy()
    losses = loss.base.call(labels, logits)
    np.testing.assert_allclose(loss(labels, logits), np.average(losses, weights=keep), rtol=1e-6)


def test_what_is_dropped_has_no_gradient_and_the_rest_weighs_more():
    loss = truncated(FeedbackCrossEntropy(reduction="sum"))
    share = tf.fill([6], 1 / 6)
    _, gradient = with_gradient(loss, LABELS, LOGITS, share)
    _, plain = with_gradient(loss.base, LABELS, LOGITS, share)
    np.testing.assert_allclose(gradient, plain * [1.2, 1.2, 1.2, 0, 1.2, 1.2], rtol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_what_weighs_nothing_does_not_matter(seed, name):
    labels, logits, shares = requests(seed)
    padded = shares.numpy() == 0
    garbage = np.random.default_rng(seed).choice([-1e4, 1e4], padded.shape)
    other = tf.where(padded, np.float32(garbage), logits), tf.where(padded, 1.0, labels)
    loss = truncated(BASES[name](reduction="sum"), 0.3)
    first = with_gradient(loss, labels, logits, shares)
    second = with_gradient(loss, other[1], other[0], shares)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["sum", "auto"])
def test_degenerate_batches_give_finite_losses_and_gradients(name, reduction):
    loss = truncated(
        BASES[name](reduction=reduction), 1.0, drop_base="positives", max_positive_fraction=1.0
    )
    labels, logits, shares = requests(7)
    none = tf.zeros([0, 4])
    for batch in ((labels, logits, 0.0 * shares), (none, none, none)):
        value, gradient = with_gradient(loss, *batch)
        assert value == 0.0 and not gradient.any()
    only = tf.ones_like(labels)  # every element is a positive, and all are dropped
    value, gradient = with_gradient(loss, only, logits, shares)
    assert value == 0.0 and not gradient.any()
    unclicked = tf.zeros_like(labels)
    value, _ = with_gradient(loss, unclicked, logits, shares)
    np.testing.assert_array_equal(value, loss.base(unclicked, logits, shares))
    for extreme in (1e4 * (2 * labels - 1), 1e4 * (1 - 2 * labels)):
        value, gradient = with_gradient(loss, labels, extreme, shares)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"jit_compile": True}])
def test_graphs_and_xla_give_what_eager_code_gives(name, options):
    loss = truncated(BASES[name](reduction="sum"), 0.3)
    graph = tf.function(loss, **options)
    for seed in range(3):
        batch = requests(seed)
        np.testing.assert_allclose(graph(*batch), loss(*batch), rtol=1e-5)


def test_a_loss_that_is_no_number_is_not_hidden_by_dropping_it():
    logits = tf.tensor_scatter_nd_update(LOGITS, [[0]], [np.nan])
    assert np.isnan(truncated(FeedbackCrossEntropy())(LABELS, logits))


def test_the_global_scope_of_one_replica_is_its_own():
    for scope in ("replica", "global"):
        loss = truncated(FeedbackCrossEntropy(), scope=scope)
        np.testing.assert_allclose(loss(LABELS, LOGITS), TRUNCATION["cases"][1][4], rtol=1e-6)


def test_config_round_trip():
    options = {
        "max_rate": 0.4,
        "num_steps": 7,
        "drop_base": "positives",
        "rounding": "ceil",
        "scope": "global",
        "max_positive_fraction": 0.6,
        "schedule": "code",
        "name": "own",
    }
    base = FeedbackCrossEntropy(2.0, 1.0, 3.0, reduction="sum")
    loss = Truncated(base, reduction="none", **options)
    twin = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert twin.get_config() == loss.get_config()
    assert {key: twin.get_config()[key] for key in options} == options
    assert twin.base.get_config() == base.get_config() and twin.step is not loss.step
    assert Truncated.from_config({"base": base}).base is base


def test_the_reduction_is_that_of_the_base_unless_told():
    base = FeedbackCrossEntropy(reduction="sum")
    assert Truncated(base).reduction == "sum"
    assert Truncated(base, reduction="none").reduction == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": tf.keras.losses.MeanSquaredError()}, "must be an ElementLoss, got MeanSquared"),
        ({"max_rate": 2.0}, "max_rate must lie between 0 and 1"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"drop_base": "all"}, "drop_base must be one of"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"scope": "world"}, "scope must be one of .*'replica', 'global'.*'world'"),
        ({"max_positive_fraction": -1}, "max_positive_fraction must lie between 0 and 1"),
        ({"schedule": "linear"}, "form must be one of"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Truncated(**{"base": SquareLoss(), **options})
