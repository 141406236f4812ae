import numpy as np
import tensorflow as tf

from tfrec_feedback.layers import length_mask, masked_mean, masked_softmax


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


def test_mean_counts_valid_positions_only():
    values = tf.constant([[[2.0], [4.0], [99.0]], [[7.0], [8.0], [9.0]]])
    mask = length_mask(tf.constant([2, 0]), 3)
    np.testing.assert_array_equal(masked_mean(values, mask), [[3.0], [0.0]])
