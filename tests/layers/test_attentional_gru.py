import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers.attentional_gru import AttentionalGRU, positions, reading_order


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(layer, steps, weights):
    """The printed recurrence over one history: all states `[T, U]` of `[T, D]` and `[T]`."""
    kernel, gates_kernel, state_kernel, bias = (w.astype(np.float64) for w in layer.get_weights())
    w_u, w_r, w_c = np.split(kernel, 3, axis=1)
    u_u, u_r = np.split(gates_kernel, 2, axis=1)
    b_u, b_r, b_c = np.split(bias, 3)
    state, states = np.zeros(len(state_kernel)), []
    for x, a in zip(steps, weights, strict=True):
        update = a * sigmoid(x @ w_u + state @ u_u + b_u)
        reset = sigmoid(x @ w_r + state @ u_r + b_r)
        candidate = np.tanh(x @ w_c + (reset * state) @ state_kernel + b_c)
        state = (1 - update) * state + update * candidate
        states.append(state)
    return np.reshape(states, [-1, len(state_kernel)])


def ragged(lengths, width=2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(sum(lengths), width)).astype(np.float32)
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def built(units, width, seed=0, **options):
    """A layer whose weights, biases included, are not what they start from."""
    rng = np.random.default_rng(seed)
    layer = AttentionalGRU(units, **options)
    layer((ragged([1], width),))
    layer.set_weights([rng.normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return layer


def twin(layer, **options):
    """A layer of equal weights."""
    other = AttentionalGRU(layer.units, **options)
    other((ragged([1], len(layer.get_weights()[0])),))
    other.set_weights(layer.get_weights())
    return other


def test_golden_step_of_the_printed_update_gate():
    layer = AttentionalGRU(1)
    events = tf.RaggedTensor.from_row_lengths([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [2, 1])
    weights = tf.constant([[1.0], [0.25], [1.0]])
    layer((events, weights))
    # Step 1 opens the gate to reach h = 0.5; step 2 has u = 0.6 and candidate -0.2.
    kernel = [[40.0, 0.0, np.arctanh(0.5)], [np.log(0.6 / 0.4), 0.0, np.arctanh(-0.2)]]
    layer.set_weights([np.array(kernel), np.zeros([1, 2]), np.zeros([1, 1]), np.zeros(3)])
    np.testing.assert_allclose(layer((events, weights)), [[[0.395]], [[0.5]]], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    candidates=st.integers(1, 3),
)
def test_equals_a_loop_over_requests_candidates_and_events(seed, lengths, candidates):
    layer = built(3, 2, seed, return_states=True)
    events, shape = ragged(lengths, seed=seed), (sum(lengths), candidates)
    weights = np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
    states = layer((events, tf.constant(weights)))
    last = twin(layer)((events, tf.constant(weights)))
    assert states.shape == (*shape, 3)
    assert last.shape == (len(lengths), candidates, 3)
    ends = np.cumsum(lengths)
    for r, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        for n in range(candidates):
            if length == 0:
                np.testing.assert_array_equal(last[r, n], np.zeros(3))
                continue
            own = slice(end - length, end)
            expected = gru(layer, events[r].numpy(), weights[own, n])
            np.testing.assert_allclose(states[own, n], expected, atol=1e-5)
            np.testing.assert_array_equal(last[r, n], states[end - 1, n])


def test_without_weights_it_is_the_gru_of_weights_of_one():
    layer = built(3, 2, return_states=True)
    events = ragged([2, 0, 3])
    np.testing.assert_allclose(layer((events,)), layer((events, tf.ones([5, 1]))), atol=1e-6)


def test_requests_do_not_see_each_other():
    layer, lengths = built(3, 2), [2, 0, 4, 1, 4]
    events = ragged(lengths)
    together = layer((events,))
    for r in range(len(lengths)):
        np.testing.assert_allclose(layer((events[r : r + 1],)), together[r : r + 1], atol=1e-6)


def test_events_of_weight_zero_copy_the_state_exactly():
    layer = built(3, 2, return_states=True)
    events = ragged([5])
    weights = tf.constant([0.0, 1.0, 0.0, 0.3, 0.0])[:, tf.newaxis]
    states = layer((events, weights)).numpy()[:, 0]
    np.testing.assert_array_equal(states[0], np.zeros(3))
    np.testing.assert_array_equal(states[2], states[1])
    np.testing.assert_array_equal(states[4], states[3])
    fewer = tf.RaggedTensor.from_row_lengths(tf.gather(events.flat_values, [1, 3]), [2])
    without = layer((fewer, tf.gather(weights, [1, 3])))
    np.testing.assert_allclose(states[[1, 3]], without[:, 0], atol=1e-6)


def test_the_order_of_events_matters():
    layer, events = built(3, 2), ragged([4])
    backwards = layer((events[:, ::-1],))
    assert np.abs(backwards - layer((events,))).max() > 1e-3


def test_gradients_equal_those_of_the_recurrence_written_out():
    layer = built(2, 3)
    values, weights = tf.random.normal([4, 3]), tf.random.uniform([4, 2])

    def written_out():
        """Histories of three events, none and one, request by request."""
        products = tf.tensordot(values, layer.kernel, 1) + layer.bias
        last = []
        for own in ([0, 1, 2], [], [3]):
            state = tf.zeros([1, 2, 2])
            for v in own:
                state = layer._step(state, products[v : v + 1], weights[v : v + 1])
            last.append(state)
        return tf.concat(last, axis=0)

    def gradients(result):
        with tf.GradientTape() as tape:
            tape.watch([values, weights])
            loss = tf.reduce_sum(result() ** 2)
        return tape.gradient(loss, [values, weights, *layer.trainable_variables])

    events = tf.RaggedTensor.from_row_lengths(values, [3, 0, 1])
    packed = tf.function(gradients)(lambda: layer((events.with_flat_values(values), weights)))
    for found, wanted in zip(packed, gradients(written_out), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.abs(wanted).max() > 0.0


def test_one_traced_function_takes_histories_of_any_length():
    layer = built(3, 2, return_states=True)
    last = twin(layer)
    shapes = [
        tf.RaggedTensorSpec([None, None, 2], tf.float32, ragged_rank=1),
        tf.TensorSpec([None, None]),
    ]

    @tf.function(input_signature=shapes)
    def graph(events, weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            results = layer((events, weights)), last((events, weights))
        return results, tape.gradient(results, weights)

    for lengths, candidates in [([1], 1), ([0, 5], 3), ([2, 3, 1], 0), ([0, 0], 2), ([], 2)]:
        events = tf.RaggedTensor.from_row_lengths(
            tf.random.normal([sum(lengths), 2]), tf.constant(lengths, tf.int64)
        )
        weights = tf.random.uniform([sum(lengths), candidates])
        (states, ends), gradient = graph(events, weights)
        np.testing.assert_allclose(states, layer((events, weights)), atol=1e-6)
        np.testing.assert_allclose(ends, last((events, weights)), atol=1e-6)
        assert ends.shape == (len(lengths), candidates, 3)
        assert np.isfinite(gradient).all()
    assert graph.experimental_get_tracing_count() == 1


def test_events_are_read_step_by_step_and_longest_history_first():
    read_at, active = reading_order(ragged([1, 0, 3, 3]))
    # Step 0 reads requests 2, 3 and 0; steps 1 and 2 read requests 2 and 3.
    np.testing.assert_array_equal(active, [3, 2, 2])
    np.testing.assert_array_equal(read_at, [2, 0, 3, 5, 1, 4, 6])
    np.testing.assert_array_equal(positions(ragged([1, 0, 2])), [0, 0, 1])


def test_without_any_event_there_is_one_step_of_no_requests():
    read_at, active = reading_order(ragged([0, 0]))
    assert read_at.shape == (0,)
    np.testing.assert_array_equal(active, [0])


def test_conformance_of_both_results():
    inputs = (ragged([3, 0, 1], 5), tf.random.uniform([4, 3]))
    assert check_layer(AttentionalGRU(6), inputs).shape == (3, 3, 6)
    assert check_layer(AttentionalGRU(6, return_states=True), inputs[:1]).shape == (4, 1, 6)
    assert check_layer(AttentionalGRU(6), (ragged([0, 0], 5),)).shape == (2, 1, 6)
    with pytest.raises(ValueError, match="units must be at least 1"):
        AttentionalGRU(0)
