import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import assert_close, check_layer
from tests.layers.reference import softmax
from tests.layers.test_attentional_gru import gru, ragged, sigmoid
from tfrec_feedback.layers.interest_evolution import InterestEvolution, NextEventLoss, own_events


def random_weights(layer, seed=0):
    rng = np.random.default_rng(seed)
    weights = [
        w if w.dtype == np.int64 else rng.normal(0, 0.7, w.shape) for w in layer.get_weights()
    ]
    layer.set_weights(weights)
    return layer


def evolution(candidates, states, units=3, seed=0):
    layer = InterestEvolution(units)
    layer((candidates, states))
    return random_weights(layer, seed)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_equals_attention_and_augru_of_one_candidate_at_a_time(seed, lengths):
    candidates = np.random.default_rng(seed).normal(size=(len(lengths), 2, 5)).astype(np.float32)
    states = ragged(lengths, seed=seed)
    inputs = (tf.constant(candidates), states)
    layer = evolution(*inputs, seed=seed)
    result, attention = layer(inputs), states.with_flat_values(layer.attention(inputs))
    for r, length in enumerate(lengths):
        valid = states[r].numpy()
        for n in range(2):
            a = softmax(valid @ layer.attention_kernel.numpy() @ candidates[r, n]) if length else []
            np.testing.assert_allclose(attention[r][:, n], a, atol=1e-5)
            expected = gru(layer._evolution, valid, a)[-1] if length else np.zeros(3)
            np.testing.assert_allclose(result[r, n], expected, atol=1e-5)


def test_a_request_meets_its_own_events_alone():
    states, candidates = ragged([3, 1, 0]), tf.random.normal([3, 2, 4])
    layer = evolution(candidates, states)
    expected = layer((candidates, states))
    others = tf.concat([states.flat_values[:3], [[1e6, -1e6]]], axis=0)
    found = layer((candidates, states.with_flat_values(others)))
    np.testing.assert_array_equal(found[0], expected[0])
    assert np.abs(found[1] - expected[1]).max() > 1e-2
    np.testing.assert_array_equal(found[2], np.zeros([2, 3]))


def test_equal_candidates_meet_the_interest_of_one():
    states, one = ragged([3, 2]), tf.random.normal([2, 1, 4])
    layer = evolution(one, states)
    expected = tf.repeat(layer((one, states)), 5, axis=1)
    assert_close(layer((tf.repeat(one, 5, axis=1), states)), expected, 1e-6)


def test_evolution_conformance_with_an_empty_history():
    candidates = tf.random.normal([2, 4, 5])
    assert check_layer(InterestEvolution(6), (candidates, ragged([3, 0]))).shape == (2, 4, 6)
    nothing = check_layer(InterestEvolution(6), (candidates, ragged([0, 0])))
    np.testing.assert_array_equal(nothing, np.zeros([2, 4, 6]))
    assert check_layer(InterestEvolution(6), (candidates[:, :0], ragged([3, 0]))).shape == (2, 0, 6)


def built_loss(*inputs, seed=0):
    layer = NextEventLoss((4, 3), seed=7)
    layer(inputs)
    return random_weights(layer, seed)


def pair_logit(layer, state, event):
    """The network's logit for one interest and one event."""
    hidden = np.concatenate([state, event])
    weights = [w for w in layer.get_weights() if w.dtype != np.int64]
    for kernel, bias in zip(weights[:4:2], weights[1:4:2], strict=True):
        hidden = sigmoid(hidden @ kernel + bias)
    return (hidden @ weights[4] + weights[5])[0]


def reference_loss(layer, states, events, rejected):
    """The printed loss, pair by pair; the k-th latest pair takes the k-th latest rejected."""
    losses = []
    for r in range(len(events)):
        for t in range(len(events[r]) - 1):
            state = states[r][t].numpy()
            loss = -np.log(sigmoid(pair_logit(layer, state, events[r][t + 1])))
            if len(rejected[r]):
                age = len(events[r]) - 2 - t
                negative = rejected[r][::-1][age % len(rejected[r])]
                loss -= np.log(1 - sigmoid(pair_logit(layer, state, negative)))
            losses.append(loss)
    return np.mean(losses) if losses else 0.0


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=4),
)
def test_loss_equals_the_mean_over_pairs_with_the_users_own_negatives(seed, lengths):
    events = ragged([n for n, _ in lengths], seed=seed)
    rejected = ragged([m for _, m in lengths], seed=seed + 1)
    states = ragged([n for n, _ in lengths], width=3, seed=seed + 2)
    layer = built_loss(states, events, rejected, seed=seed)
    as_arrays = [[row.numpy() for row in rows] for rows in (events, rejected)]
    expected = reference_loss(layer, states, *as_arrays)
    assert float(layer((states, events, rejected))) == pytest.approx(expected, abs=1e-5)


def test_loss_of_a_silent_network_is_two_log_two_a_pair():
    events, rejected = ragged([3, 2]), ragged([1, 1])
    states = ragged([3, 2], width=3)
    layer = built_loss(states, events, rejected)
    layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    assert float(layer((states, events, rejected))) == pytest.approx(2 * np.log(2))
    # Two pairs of three have no negative: (3 + 1) log 2 over three pairs.
    without = ragged([0, 1])
    assert float(layer((states, events, without))) == pytest.approx(4 / 3 * np.log(2))


def test_own_events_begin_with_the_latest_and_start_over():
    values = [[1.0], [2.0], [3.0], [9.0]]
    events = tf.RaggedTensor.from_row_lengths(values, [3, 0, 1])
    requests = tf.constant([0, 0, 0, 0, 1, 2, 2], tf.int64)
    ages = tf.constant([0, 1, 2, 3, 0, 0, 5], tf.int64)
    vectors, exists = own_events(events, requests, ages)
    np.testing.assert_array_equal(vectors[:, 0], [3, 2, 1, 3, 0, 9, 9])
    np.testing.assert_array_equal(exists, [1, 1, 1, 1, 0, 1, 1])


def loss_and_gradients(layer, states, *events):
    """In a graph, where an empty product could be folded into something else."""
    values = states.flat_values

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = layer((states.with_flat_values(values), *events))
        return loss, tape.gradient(loss, [values, *layer.trainable_variables])

    return step()


@pytest.mark.parametrize("lengths", [[0, 0], [1, 1], [1, 0]])
def test_loss_without_pairs_is_zero_with_zero_gradients(lengths):
    states = ragged(lengths, width=3)
    for more in ((), (ragged([2, 0]),)):
        inputs = (states, ragged(lengths), *more)
        loss, gradients = loss_and_gradients(built_loss(*inputs), *inputs)
        assert float(loss) == 0.0
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def drawn(layer, events, requests):
    vectors, exists = layer._others_events(events, tf.constant(requests, tf.int64))
    return vectors.numpy()[:, 0], exists.numpy()


def test_random_negatives_are_drawn_evenly_from_other_requests():
    values = np.arange(6.0, dtype=np.float32)[:, np.newaxis]
    events = tf.RaggedTensor.from_row_lengths(values, [2, 3, 0, 1])
    layer = built_loss(ragged([2, 3, 0, 1], width=3), events)
    negatives, exists = drawn(layer, events, np.repeat([0, 1, 2, 3], 6000))
    assert exists.all()
    others = {0: [2, 3, 4, 5], 1: [0, 1, 5], 2: range(6), 3: [0, 1, 2, 3, 4]}
    for request, expected in others.items():
        of_request = negatives[request * 6000 : (request + 1) * 6000]
        found, counts = np.unique(of_request, return_counts=True)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(counts / 6000, 1 / len(expected), atol=0.03)


def test_random_negatives_need_another_request_with_events():
    events = tf.RaggedTensor.from_row_lengths([[1.0], [2.0]], [2, 0])
    states = ragged([2, 0], width=3)
    layer = built_loss(states, events)
    negatives, exists = drawn(layer, events, [0, 0])
    np.testing.assert_array_equal(negatives, [0, 0])
    np.testing.assert_array_equal(exists, [0, 0])
    layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    assert float(layer((states, events))) == pytest.approx(np.log(2))


def test_draws_differ_by_call_and_a_restored_counter_repeats_them():
    events = ragged([4, 4, 4])
    inputs = (ragged([4, 4, 4], width=3, seed=1), events)
    layer = built_loss(*inputs)
    weights = layer.get_weights()
    first, second = float(layer(inputs)), float(layer(inputs))
    assert first != second
    layer.set_weights(weights)
    assert (float(layer(inputs)), float(layer(inputs))) == (first, second)


def test_loss_conformance():
    inputs = (ragged([3, 1], width=5), ragged([3, 1]), ragged([0, 2]))
    assert check_layer(NextEventLoss(), inputs).shape == ()
    layer = NextEventLoss((4,), seed=3)
    layer(inputs[:2])
    assert NextEventLoss.from_config(layer.get_config()).seed == 3
