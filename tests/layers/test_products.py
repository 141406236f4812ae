import numpy as np
import pytest
import tensorflow as tf

from tfrec_feedback.layers.products import batched_product, project


def test_multiplies_batch_by_batch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 1, 5)), rng.normal(size=(2, 3, 5, 4))
    expected = np.einsum("xyik,xykj->xyij", a, b)
    np.testing.assert_allclose(batched_product(tf.constant(a), tf.constant(b)), expected)
    transposed = tf.constant(np.swapaxes(b, -1, -2))
    np.testing.assert_allclose(batched_product(tf.constant(a), transposed, True), expected)


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (1, 3, 5, 4)])
def test_operands_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match="agree in rank and leading axes"):
        batched_product(tf.ones([2, 3, 1, 5]), tf.ones(shape))


def test_a_projection_of_width_zero_is_zero_and_others_are_products():
    np.testing.assert_array_equal(project(tf.ones([2, 4, 0]), tf.ones([0, 3])), np.zeros([2, 4, 3]))
    np.testing.assert_allclose(
        project(tf.constant([[1.0, 2.0]]), tf.constant([[3.0], [4.0]])), [[11.0]]
    )
