import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import MEMORY, MEMORY_READ, MEMORY_WRITE
from tfrec_feedback.layers import memory_addressing

GOLDEN = {name: np.float32(value) for name, value in MEMORY_WRITE.items()}
RULES = memory_addressing.WRITE_RULES


def example(seed, batch=4, slots=5, width=3):
    """Memory, write weights, erase, add, validity of a random batch."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(slots), batch)
    arrays = (
        rng.normal(size=(slots, width)),
        weights,
        rng.uniform(size=(batch, width)),
        rng.uniform(-1, 1, (batch, width)),
        rng.choice([0.0, 0.25, 1.0], batch),
    )
    return [np.float32(array) for array in arrays]


def write_golden(rule, order=(0, 1), validity=(1.0, 1.0)):
    order = list(order)
    return memory_addressing.write(
        tf.constant(MEMORY),
        GOLDEN["weights"][order],
        GOLDEN["erase"][order],
        GOLDEN["add"][order],
        np.float32(validity)[order],
        rule,
    ).numpy()


def test_golden_read():
    memory = tf.constant(MEMORY)
    keys = tf.constant([MEMORY_READ["key"], [1.0, 1.0], [0.0, 0.0]])
    weights = memory_addressing.cosine_weights(keys, memory)
    expected = [MEMORY_READ["weights"], [0.5, 0.5], [0.5, 0.5]]
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    read = memory_addressing.read(weights, memory)
    np.testing.assert_allclose(read, [MEMORY_READ["read"], [0.5, 1.0], [0.5, 1.0]], atol=1e-6)


def test_key_strength_is_one_number_or_one_a_key():
    keys = tf.constant([MEMORY_READ["key"]] * 2)
    fixed = memory_addressing.cosine_weights(keys, tf.constant(MEMORY), 5.0)
    np.testing.assert_allclose(fixed, [MEMORY_READ["strength_5"]] * 2, atol=1e-6)
    own = memory_addressing.cosine_weights(keys, tf.constant(MEMORY), tf.constant([1.0, 5.0]))
    expected = [MEMORY_READ["weights"], MEMORY_READ["strength_5"]]
    np.testing.assert_allclose(own, expected, atol=1e-6)


def test_at_strength_1_no_slot_of_256_can_weigh_more_than_3_percent():
    memory = np.float32([[1.0, 0.0]] + [[-1.0, 0.0]] * 255)
    weights = memory_addressing.cosine_weights(tf.constant([[1.0, 0.0]]), memory)
    np.testing.assert_allclose(weights[0, 0], 0.02816068706823159, atol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "sequential", "multi_head", "union"])
def test_golden_writes_of_a_batch(rule):
    np.testing.assert_allclose(write_golden(rule), GOLDEN[rule], atol=1e-6)


def test_the_order_matters_to_the_sequential_rule_alone():
    np.testing.assert_allclose(write_golden("sequential", (1, 0)), GOLDEN["reversed"], atol=1e-6)
    for rule in memory_addressing.ADDITIVE_RULES:
        np.testing.assert_allclose(write_golden(rule, (1, 0)), GOLDEN[rule], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_one_example_writes_as_printed_whatever_the_rule(rule):
    first = write_golden(rule, validity=(1.0, 0.0))
    np.testing.assert_allclose(first, GOLDEN["first"], atol=1e-6)
    second = write_golden(rule, validity=(0.0, 1.0))
    np.testing.assert_allclose(second, GOLDEN["second"], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_with_nothing_valid_the_memory_stays_the_same_to_the_bit(rule):
    memory, weights, erase, add, _ = example(0)
    written = memory_addressing.write(
        tf.constant(memory), weights, erase, add, np.zeros(4, np.float32), rule
    )
    np.testing.assert_array_equal(written, memory)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), rule=st.sampled_from(memory_addressing.ADDITIVE_RULES))
def test_order_padding_and_cutting_of_the_batch_do_not_matter(seed, rule):
    memory, weights, erase, add, validity = example(seed)
    rng = np.random.default_rng(seed)

    def write(order):
        parts = (weights[order], erase[order], add[order], validity[order])
        return memory_addressing.write(tf.constant(memory), *parts, rule).numpy()

    expected = write(np.arange(4))
    np.testing.assert_allclose(write(rng.permutation(4)), expected, atol=1e-5)
    used = np.flatnonzero(validity > 0)  # examples that are not valid are padding
    np.testing.assert_allclose(write(used), expected, atol=1e-5)
    halves = [
        memory_addressing.write_sums(*(tf.constant(x[half]) for x in batch), rule)
        for half in (slice(0, 1), slice(1, 4))
        for batch in [(weights, erase, add, validity)]
    ]
    joined = tuple(tf.add(a, b) for a, b in zip(*halves, strict=True))
    in_parts = memory_addressing.apply_sums(tf.constant(memory), joined, rule)
    np.testing.assert_allclose(in_parts, expected, atol=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_mean_rule_is_the_mean_of_what_every_example_alone_would_leave(seed):
    memory, weights, erase, add, _ = example(seed)
    alone = [
        (1.0 - np.outer(w, e)) * memory + np.outer(w, a)
        for w, e, a in zip(weights, erase, add, strict=True)
    ]
    ones = np.ones(4, np.float32)
    written = memory_addressing.write(tf.constant(memory), weights, erase, add, ones)
    np.testing.assert_allclose(written, np.mean(alone, axis=0), atol=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_multi_head_and_union_agree_with_plain_loops(seed):
    memory, weights, erase, add, validity = example(seed)
    scaled = weights * validity[:, None]
    kept, added = np.ones_like(memory), np.zeros_like(memory)
    untouched = np.ones(len(memory))
    for w, e, a in zip(scaled, erase, add, strict=True):
        kept *= 1.0 - np.outer(w, e)
        added += np.outer(w, a)
        untouched *= 1.0 - w
    batch = (weights, erase, add, validity)
    multi_head = memory_addressing.write(tf.constant(memory), *batch, "multi_head")
    np.testing.assert_allclose(multi_head, kept * memory + added, atol=1e-5)
    mass = scaled.sum(0)[:, None]
    e = np.divide(scaled.T @ erase, mass, where=mass > 0, out=np.zeros_like(memory))
    a = np.divide(scaled.T @ add, mass, where=mass > 0, out=np.zeros_like(memory))
    g = 1.0 - untouched[:, None]
    union = memory_addressing.write(tf.constant(memory), *batch, "union")
    np.testing.assert_allclose(union, (1.0 - g * e) * memory + g * a, atol=1e-5)


def test_golden_anchors_and_that_they_are_what_a_lone_writer_reads_back():
    weights, erase, add = (tf.constant(GOLDEN[key]) for key in ("weights", "erase", "add"))
    anchors = memory_addressing.read_after_write(tf.constant(MEMORY), weights, erase, add)
    np.testing.assert_allclose(anchors, MEMORY_WRITE["anchors"], atol=1e-6)
    for i, alone in enumerate(("first", "second")):
        read = GOLDEN["weights"][i] @ GOLDEN[alone]
        np.testing.assert_allclose(anchors[i], read, atol=1e-6)


def test_anchors_give_the_write_heads_a_gradient_and_short_keys_a_finite_one():
    memory = tf.constant(MEMORY)
    for size in (0.0, 1e-12, 1e-4, 1.0):
        key = tf.Variable([[size, size / 2]])
        erase, add = tf.Variable([[0.5, 0.3]]), tf.Variable([[0.2, -0.6]])
        with tf.GradientTape() as tape:
            weights = memory_addressing.cosine_weights(key, memory)
            anchor = memory_addressing.read_after_write(memory, weights, erase, add)
            total = tf.reduce_sum(tf.square(anchor))
        of_key, of_erase, of_add = tape.gradient(total, [key, erase, add])
        assert np.isfinite(of_key).all()
        assert np.any(of_key) == (size > 0.0)
        assert np.abs(of_erase).min() > 0
        assert np.abs(of_add).min() > 0


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"Unknown write rule 'max'.*mean"):
        write_golden("max")
