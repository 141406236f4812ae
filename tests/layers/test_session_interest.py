import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import assert_close, check_layer
from tfrec_feedback.layers.session_interest import SessionInterest

OPTIONS = {"num_sessions": 3, "session_length": 2, "num_heads": 2}
WIDTH = 4


def perturbed(layer, inputs, seed=0):
    layer(inputs)
    rng = np.random.default_rng(seed)
    layer.set_weights([w + rng.normal(0, 0.4, w.shape) for w in layer.get_weights()])
    return layer


def batch(lengths, numbers, seed=0):
    """Random events of requests, and their session numbers padded with 99."""
    rng = np.random.default_rng(seed)
    values = tf.constant(rng.normal(size=(sum(lengths), WIDTH)), tf.float32)
    width = max([1, *lengths])
    padded = [row + [99] * (width - len(row)) for row in numbers]
    events = tf.RaggedTensor.from_row_lengths(values, lengths)
    return events, tf.constant(padded, tf.int32)


# Sessions with more events than take part, one left out as too old, one event alone, and nobody.
LENGTHS = [7, 1, 0, 3]
NUMBERS = [[3, 2, 2, 2, 1, 0, 0], [0], [], [1, 1, 0]]
INPUTS = batch(LENGTHS, NUMBERS)


def softmax(x):
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def naive_session(layer, events, session):
    """The interest of one session from its events `[n, D]`, oldest first."""
    weights = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in layer.weights}
    size, heads = len(events), layer.num_heads
    x = np.array(events, np.float64)
    for i in range(size):
        place = size - 1 - i
        x[i] += weights["session_encoding"][session, 0] + weights["place_encoding"][place, 0]
        x[i] += weights["unit_encoding"]
    query, key, value = (x @ weights[f"{n}_kernel"] for n in ("query", "key", "value"))
    read, each = np.zeros_like(x), WIDTH // heads
    for h in range(heads):
        part = slice(h * each, (h + 1) * each)
        for i in range(size):
            shares = softmax(
                np.array([query[i, part] @ key[j, part] for j in range(size)]) / each**0.5
            )
            read[i, part] = sum(s * v for s, v in zip(shares, value[:, part], strict=True))
    x = x + read @ weights["output_kernel"]
    (wide, wide_bias), (narrow, narrow_bias) = (
        (dense["kernel"].numpy(), dense["bias"].numpy()) for dense in (layer.wide, layer.narrow)
    )
    x = x + np.maximum(x @ wide + wide_bias, 0) @ narrow + narrow_bias
    return x.mean(axis=0)


def naive_lstm(layer, direction, inputs):
    """Hidden states of `[k, D]`; the gates are input, forget, candidate, output."""
    names = ("kernel", "recurrent_kernel", "bias")
    kernel, recurrent, bias = (layer.lstm[f"{direction}_{name}"].numpy() for name in names)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    h = c = np.zeros(WIDTH)
    states = []
    for x in inputs:
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias[0], 4)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def naive(layer, events, numbers):
    """Interests and evolved interests of one request, latest session first."""
    interests = []
    for session in range(layer.num_sessions):
        found = [e for e, n in zip(events, numbers, strict=True) if n == session]
        if len(found) >= layer.min_session_events and found:
            interests.append(naive_session(layer, found[-layer.session_length :], session))
    forward = naive_lstm(layer, "forward", interests[::-1])[::-1]
    backward = naive_lstm(layer, "backward", interests)
    return interests, [f + b for f, b in zip(forward, backward, strict=True)]


def assert_naive(layer, inputs, numbers):
    for r, found in enumerate(zip(*layer(inputs), strict=True)):
        expected = naive(layer, inputs[0][r].numpy(), numbers[r])
        for actual, rows in zip(found, expected, strict=True):
            assert_close(actual, np.reshape(rows, [-1, WIDTH]), 1e-5)


@pytest.mark.parametrize("options", [{}, {"min_session_events": 2}, {"session_length": 9}])
def test_a_plain_loop_gives_the_same(options):
    layer = perturbed(SessionInterest(**{**OPTIONS, **options}), INPUTS)
    assert_naive(layer, INPUTS, NUMBERS)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_any_history_gives_what_a_plain_loop_gives(pauses, session_length, min_session_events):
    numbers = [np.cumsum([0, *row])[::-1].tolist()[: len(row)] for row in pauses]
    inputs = batch([len(row) for row in numbers], numbers)
    layer = SessionInterest(3, session_length, 2, min_session_events)
    assert_naive(perturbed(layer, inputs), inputs, numbers)


def test_conformance():
    layer = SessionInterest(**OPTIONS)
    interests, evolved = check_layer(layer, INPUTS)
    # Session 3 of the first request is one more than are told apart.
    assert interests.row_lengths().numpy().tolist() == [3, 1, 0, 2]
    assert evolved.row_lengths().numpy().tolist() == [3, 1, 0, 2]


def test_events_of_other_sessions_do_not_influence_a_session_s_interest():
    layer = perturbed(SessionInterest(**OPTIONS), INPUTS)
    events, numbers = INPUTS
    changed = events.flat_values.numpy()
    changed[1:4] += 5.0  # session 2 of the first request
    other = layer((events.with_flat_values(tf.constant(changed)), numbers))
    before, after = layer(INPUTS)[0][0].numpy(), other[0][0].numpy()
    np.testing.assert_array_equal(after[:2], before[:2])
    assert np.abs(after[2] - before[2]).max() > 0.1
    # The sequence carries it on to the later sessions, and to no other request.
    assert np.abs(other[1][0] - layer(INPUTS)[1][0]).max(axis=1).min() > 1e-3
    np.testing.assert_array_equal(other[1].flat_values[3:], layer(INPUTS)[1].flat_values[3:])


def test_a_session_s_older_events_beyond_its_length_take_no_part():
    layer = perturbed(SessionInterest(**OPTIONS), INPUTS)
    shorter = batch([2], [[0, 0]])
    longer = (
        tf.concat([tf.ones([1, 1, WIDTH]), shorter[0].to_tensor()], axis=1),
        tf.constant([[0, 0, 0]]),
    )
    longer = (tf.RaggedTensor.from_tensor(longer[0]), longer[1])
    assert_close(layer(longer), layer(shorter), 1e-6)


def test_padding_changes_nothing():
    layer = perturbed(SessionInterest(**OPTIONS), INPUTS)
    events, numbers = INPUTS
    for padding in (0, 3, 99):
        wide = tf.concat([numbers, tf.fill([4, 5], padding)], axis=1)
        mask = tf.sequence_mask(LENGTHS, 12)
        wide = tf.where(mask, wide, padding)
        assert_close(layer((events, wide)), layer(INPUTS), 1e-6)


def test_missing_sessions_leave_the_state_as_it_is():
    # Session 1 has too few events: 0 follows 2 as if it were not there.
    layer = perturbed(SessionInterest(3, 10, 2, min_session_events=2), INPUTS)
    numbers = [[2, 2, 1, 0, 0]]
    inputs = batch([5], numbers)
    assert layer(inputs)[0].row_lengths().numpy().tolist() == [2]
    assert_naive(layer, inputs, numbers)


@pytest.mark.parametrize("lengths", [[0, 0], [1, 0], [3, 0]])
def test_short_and_empty_histories_have_finite_gradients(lengths):
    numbers = [list(range(n))[::-1] for n in lengths]
    events, sessions = batch(lengths, numbers)
    layer = perturbed(SessionInterest(**OPTIONS), (events, sessions))
    values = events.flat_values
    with tf.GradientTape() as tape:
        tape.watch(values)
        interests, evolved = layer((events.with_flat_values(values), sessions))
        loss = tf.reduce_sum(interests.flat_values) + tf.reduce_sum(evolved.flat_values)
    assert interests.row_lengths().numpy().tolist() == lengths
    for gradient in tape.gradient(loss, [values, *layer.trainable_variables]):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_the_encodings_start_near_zero():
    layer = SessionInterest(**OPTIONS)
    layer(INPUTS)
    assert {n: w.shape.as_list() for n, w in layer.encodings.items()} == {
        "session": [3, 1],
        "place": [2, 1],
        "unit": [WIDTH],
    }
    assert max(float(tf.reduce_max(tf.abs(w))) for w in layer.encodings.values()) < 1e-3


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="num_heads=3 must divide D=4"):
        SessionInterest(3, num_heads=3)(INPUTS)
    for name in ("num_sessions", "session_length", "num_heads", "min_session_events"):
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
            SessionInterest(**{**OPTIONS, name: 0})
