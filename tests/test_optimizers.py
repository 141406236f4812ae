import numpy as np
import pytest
import tensorflow as tf

from tfrec_feedback.optimizers import LazyAdam


def one_step(optimizer, variable, gradient):
    optimizer.apply_gradients([(gradient, variable)])
    return variable.numpy()


def test_dense_gradients_take_adams_steps():
    gradient = tf.constant([[0.5, -1.0]])
    ours, theirs = tf.Variable([[1.0, 2.0]]), tf.Variable([[1.0, 2.0]])
    lazy, adam = LazyAdam(0.1), tf.keras.optimizers.Adam(0.1)
    for _ in range(3):
        np.testing.assert_allclose(one_step(lazy, ours, gradient), one_step(adam, theirs, gradient))


def test_rows_seen_at_every_step_take_adams_steps():
    rows = tf.IndexedSlices(tf.constant([[0.5], [-1.0]]), tf.constant([0, 1]), [2, 1])
    ours, theirs = tf.Variable([[1.0], [2.0]]), tf.Variable([[1.0], [2.0]])
    lazy, adam = LazyAdam(0.1), tf.keras.optimizers.Adam(0.1)
    for _ in range(3):
        expected = one_step(adam, theirs, tf.convert_to_tensor(rows))
        np.testing.assert_allclose(one_step(lazy, ours, rows), expected, rtol=1e-6)


def test_rows_outside_the_batch_keep_their_values_and_moments():
    table = tf.Variable(tf.ones([4, 2]))
    optimizer = LazyAdam(0.1)
    seen = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([2]), [4, 2])
    other = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([0]), [4, 2])
    one_step(optimizer, table, seen)
    before = [v.numpy()[2] for v in (table, *optimizer.variables[2:4])]
    after = one_step(optimizer, table, other)
    np.testing.assert_array_equal(after[1], [1.0, 1.0])
    for old, variable in zip(before, (table, *optimizer.variables[2:4]), strict=True):
        np.testing.assert_array_equal(variable.numpy()[2], old)


def test_repeated_rows_are_summed_before_the_step():
    repeated = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([1, 1]), [2, 1])
    once = tf.IndexedSlices(tf.constant([[3.0]]), tf.constant([1]), [2, 1])
    results = []
    for gradient in (repeated, once):
        results.append(one_step(LazyAdam(0.1), tf.Variable([[0.0], [0.0]]), gradient))
    np.testing.assert_array_equal(results[0], results[1])


def test_config_round_trip_and_no_amsgrad():
    twin = LazyAdam.from_config(LazyAdam(0.25, beta_1=0.5).get_config())
    assert float(twin.learning_rate) == 0.25
    assert twin.beta_1 == 0.5
    with pytest.raises(ValueError, match="amsgrad"):
        LazyAdam(amsgrad=True)


def test_weights_decay_by_the_learning_rate_and_vectors_do_not():
    still = [tf.constant([[0.0, 0.0]]), tf.constant([0.0])]
    weights = [tf.Variable([[1.0, 2.0]]), tf.Variable([3.0])]
    LazyAdam(0.1, weight_decay=0.5).apply_gradients(zip(still, weights, strict=True))
    np.testing.assert_allclose(weights[0], [[0.95, 1.9]], rtol=1e-6)
    np.testing.assert_array_equal(weights[1], [3.0])


def test_only_the_rows_of_the_batch_decay():
    table = tf.Variable(tf.ones([3, 2]))
    rows = tf.IndexedSlices(tf.zeros([1, 2]), tf.constant([1]), [3, 2])
    decayed = one_step(LazyAdam(0.1, row_scale=2.0, weight_decay=0.5), table, rows)
    np.testing.assert_allclose(decayed, [[1, 1], [0.9, 0.9], [1, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"global_clipnorm": 1.0}, [[0.8], [0.6]]),
        ({"clipnorm": 1.0}, [[0.8], [0.6]]),
        ({"clipvalue": 1.0}, [[1.0], [1.0]]),
    ],
)
def test_clipping_looks_at_the_whole_gradient_of_a_row(options, expected):
    """A row looked up a hundred times, and one looked up once."""
    values = tf.constant([[0.04]] * 100 + [[3.0]])
    repeated = tf.IndexedSlices(values, tf.constant([1] * 100 + [0]), [2, 1])
    optimizer = LazyAdam(0.1, beta_1=0.0, **options)
    table = tf.Variable([[0.0], [0.0]])
    one_step(optimizer, table, repeated)
    _, first_moments, _ = optimizer.table_of(table)
    np.testing.assert_allclose(tf.reverse(first_moments, [0]), expected, rtol=1e-5)


def test_kernels_decay_whatever_the_layers_around_them_are_called():
    still = [tf.zeros([1, 2])] * 2
    with tf.name_scope("debiased/bias_tower"):
        weights = [tf.Variable([[1.0, 2.0]], name=name) for name in ("kernel", "bias")]
    LazyAdam(0.1, weight_decay=0.5).apply_gradients(zip(still, weights, strict=True))
    np.testing.assert_allclose(weights[0], [[0.95, 1.9]], rtol=1e-6)
    np.testing.assert_array_equal(weights[1], [[1.0, 2.0]])
