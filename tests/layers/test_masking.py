import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec_feedback.layers import masked_softmax, ragged_mean
from tfrec_feedback.layers.masking import repeat_rows, sum_rows, take_rows


def test_masked_softmax_gives_the_golden_weights_and_gradient():
    logits = tf.Variable([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        weights = masked_softmax(logits, tf.constant([1.0, 1.0, 0.0]))
        total = tf.reduce_sum(weights * [1.0, 2.0, 3.0])
    np.testing.assert_allclose(weights, [0.268941, 0.731059, 0.0], atol=1e-6)
    np.testing.assert_allclose(tape.gradient(total, logits), [-0.196612, 0.196612, 0], atol=1e-6)


def test_softmax_of_nothing_is_zero_with_zero_gradient():
    logits = tf.Variable([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        weights = masked_softmax(logits, tf.zeros([3]))
        total = tf.reduce_sum(weights * [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(weights, [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(tape.gradient(total, logits), [0.0, 0.0, 0.0])


def test_huge_logits_stay_finite():
    weights = masked_softmax(tf.constant([1e6, -1e6, 1e30]), tf.constant([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(weights, [1.0, 0.0, 0.0])


def test_ragged_mean_is_over_a_requests_own_events():
    events = tf.RaggedTensor.from_row_lengths([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [2, 0, 1])
    np.testing.assert_array_equal(ragged_mean(events), [[2.0, 3.0], [0.0, 0.0], [9.0, 9.0]])


def test_ragged_mean_of_no_event_at_all_is_zero():
    events = tf.RaggedTensor.from_row_lengths(tf.zeros([0, 3]), [0, 0])
    np.testing.assert_array_equal(ragged_mean(events), np.zeros([2, 3]))


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_ragged_mean_is_that_of_each_requests_own_rows(lengths, seed):
    """Of events that are matrices: a vector a field."""
    values = np.random.default_rng(seed).normal(size=(sum(lengths), 3, 2)).astype(np.float32)
    events = tf.RaggedTensor.from_row_lengths(tf.constant(values), lengths)
    found = ragged_mean(events)
    assert found.shape == (len(lengths), 3, 2)
    own = np.split(values, np.cumsum(lengths)[:-1])
    means = [rows.mean(axis=0) if len(rows) else np.zeros((3, 2)) for rows in own]
    np.testing.assert_allclose(found, means, atol=1e-6)


def test_the_gradient_of_a_ragged_mean_is_shared_by_a_requests_events():
    values = tf.Variable([[1.0], [3.0], [9.0]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(ragged_mean(tf.RaggedTensor.from_row_lengths(values, [2, 0, 1])))
    np.testing.assert_array_equal(tape.gradient(total, values), [[0.5], [0.5], [1.0]])


@given(st.lists(st.integers(0, 6), max_size=20), st.booleans())
def test_rows_are_taken_and_added_up_like_a_loop_would(rows, as_graph):
    """The last rows, which nothing may belong to, count too."""
    rng = np.random.default_rng(len(rows))
    x, weights = rng.normal(size=(8, 3)), rng.normal(size=(len(rows), 3))
    in_order = sorted(rows)
    wrap = tf.function if as_graph else lambda function: function
    for function, chosen in ((take_rows, rows), (repeat_rows, in_order)):
        index = tf.constant(chosen, tf.int64, [len(rows)])
        values = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(values)
            taken = wrap(function)(values, index)
            total = tf.reduce_sum(taken * weights)
        np.testing.assert_allclose(taken, x[chosen].reshape(-1, 3))
        expected = np.zeros_like(x)
        np.add.at(expected, np.array(chosen, int), weights)
        np.testing.assert_allclose(tape.gradient(total, values), expected, atol=1e-12)
    index, parts = tf.constant(in_order, tf.int64, [len(rows)]), tf.constant(weights)
    with tf.GradientTape() as tape:
        tape.watch(parts)
        sums = wrap(sum_rows)(parts, index, 8)
        total = tf.reduce_sum(sums * x)
    expected = np.zeros_like(x)
    np.add.at(expected, np.array(in_order, int), weights)
    np.testing.assert_allclose(sums, expected, atol=1e-12)
    np.testing.assert_allclose(tape.gradient(total, parts), x[in_order].reshape(-1, 3))
