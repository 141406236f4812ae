import numpy as np
import pytest
import tensorflow as tf

from tests.layers.conformance import assert_close, check_layer
from tfrec_feedback.layers import UserMemory, memory_addressing

SMALL = {"memory_size": 6, "word_size": 4, "controller_units": 5}


def inputs(seed=0, requests=3, candidates=2):
    rng = np.random.default_rng(seed)
    short_term = rng.normal(size=(requests, candidates, 3))
    return tf.constant(short_term, tf.float32), tf.constant(
        rng.normal(size=(requests, 2)), tf.float32
    )


def built(**options):
    tf.keras.utils.set_random_seed(1)
    memory = UserMemory(**{**SMALL, **options})
    memory(*inputs())
    return memory


@pytest.mark.parametrize(
    "options", [{}, {"key_strength": "learned"}, {"write_rule": "union", "max_norm": 1.0}]
)
def test_conformance(options):
    read = check_layer(UserMemory(**{**SMALL, **options}), *inputs())
    assert read.shape == (3, 2, 4)


def referee(memory, short_term, user):
    """The printed formulas for one example: read, write weights, erase, add."""
    weights = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in memory.weights}
    hidden = np.maximum(
        np.concatenate([user, short_term]) @ weights["kernel"] + weights["bias"], 0.0
    )
    heads = hidden @ weights["heads_kernel"] + weights["heads_bias"]
    read_key, write_key, erase, add = np.split(heads, 4)
    rows = memory.memory.numpy()

    def address(key, head):
        strength = 1.0
        if memory.key_strength == "learned":
            logit = key @ weights["strength_kernel"][:, head] + weights["strength_bias"][head]
            strength = 1.0 + np.log1p(np.exp(logit))
        cosines = rows @ key / np.linalg.norm(rows, axis=1) / np.linalg.norm(key)
        exponentials = np.exp(strength * cosines)
        return exponentials / exponentials.sum()

    read = address(read_key, 0) @ rows
    return read, address(write_key, 1), 1.0 / (1.0 + np.exp(-erase)), np.tanh(add)


@pytest.mark.parametrize("key_strength", [1.0, "learned"])
def test_an_access_equals_the_printed_formulas(key_strength):
    memory = built(key_strength=key_strength)
    rng = np.random.default_rng(0)
    memory.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in memory.get_weights()])
    short_term, user = inputs()
    rows = memory.memory.numpy()
    access = memory.access(short_term, user)
    for r in range(3):
        for n in range(2):
            read, weights, erase, add = referee(memory, short_term[r, n].numpy(), user[r].numpy())
            for found, expected in zip(
                (access.read, access.write_weights, access.erase, access.add),
                (read, weights, erase, add),
                strict=True,
            ):
                np.testing.assert_allclose(found[r, n], expected, atol=1e-5)
            alone = (1.0 - np.outer(weights, erase)) * rows + np.outer(weights, add)
            np.testing.assert_allclose(access.anchor[r, n], weights @ alone, atol=1e-5)
    assert_close(memory(short_term, user), access.read, 1e-6)


def test_a_learned_strength_starts_at_10_for_every_key():
    memory = built(key_strength="learned")
    key = tf.constant([[[1.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(
        memory._address(key, 0),
        memory_addressing.cosine_weights(key, memory.memory, 10.0),
        atol=1e-6,
    )


def test_rows_start_apart_and_about_as_long_as_one():
    memory = UserMemory(memory_size=256, word_size=64, controller_units=4)
    memory(*inputs())
    norms = np.linalg.norm(memory.memory, axis=1)
    assert 0.9 < norms.mean() < 1.1
    unit = memory.memory.numpy() / norms[:, None]
    assert np.abs(unit @ unit.T - np.eye(256)).max() < 0.7


def test_reading_and_preparing_a_write_change_nothing():
    memory = built()
    before = memory.memory.numpy()
    memory(*inputs())
    access = memory.access(*inputs())
    memory.write_sums(access, tf.ones([3, 2]))
    np.testing.assert_array_equal(memory.memory, before)


@pytest.mark.parametrize("rule", memory_addressing.ADDITIVE_RULES)
def test_commit_writes_what_the_rule_says(rule):
    memory = built(write_rule=rule)
    before = memory.memory.numpy()
    access, validity = memory.access(*inputs()), tf.constant([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    memory.commit(memory.write_sums(access, validity))
    flat = [tf.reshape(x, [6, -1]) for x in (access.write_weights, access.erase, access.add)]
    expected = memory_addressing.write(tf.constant(before), *flat, tf.reshape(validity, [6]), rule)
    np.testing.assert_allclose(memory.memory, expected, atol=1e-6)
    assert np.abs(memory.memory - before).max() > 1e-4


def test_slots_are_clipped_to_the_largest_norm():
    memory = built(max_norm=0.1)
    memory.commit(memory.write_sums(memory.access(*inputs()), tf.ones([3, 2])))
    assert np.linalg.norm(memory.memory, axis=1).max() < 0.1 + 1e-6


def test_slots_that_nothing_was_written_to_stay_to_the_bit_however_long():
    for max_norm in (0.1, 100.0):
        memory = built(max_norm=max_norm)
        before = memory.memory.numpy()
        memory.commit(memory.write_sums(memory.access(*inputs()), tf.zeros([3, 2])))
        np.testing.assert_array_equal(memory.memory, before)


def test_rows_of_a_batch_are_requests_of_one_candidate():
    memory = built()
    short_term, user = inputs(candidates=1)
    np.testing.assert_allclose(
        memory(short_term[:, 0], user), memory(short_term, user)[:, 0], atol=1e-6
    )


def test_the_memory_is_no_trainable_weight_and_serving_needs_the_read_key_alone():
    memory = built()
    assert "memory" not in " ".join(w.name.split("/")[-1] for w in memory.trainable_weights)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(memory(*inputs()))
    kernel = tape.gradient(total, memory.heads_kernel).numpy()
    assert np.abs(kernel[:, :4]).max() > 0
    assert np.abs(kernel[:, 4:]).max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_size": 0}, "memory_size must be positive, got 0"),
        ({"key_strength": "learnt"}, "'learned', got 'learnt'"),
        ({"key_strength": 0.0}, "positive number"),
        ({"write_rule": "sequential"}, "write_rule must be one of"),
        ({"max_norm": -1.0}, "max_norm must be positive or None"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UserMemory(**options)
