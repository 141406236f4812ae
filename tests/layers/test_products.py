import numpy as np
import pytest
import tensorflow as tf

from tfrec_feedback.layers.products import batched_product, project, weighted_sum


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


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_weighted_sum_and_its_gradients_are_those_of_the_definition(rows, compiled):
    rng = np.random.default_rng(rows)
    weights, x = rng.normal(size=rows), rng.normal(size=(rows, 3))
    upstream = rng.normal(size=3)

    @tf.function(jit_compile=compiled)
    def run(weights, x):
        with tf.GradientTape() as tape:
            tape.watch((weights, x))
            total = weighted_sum(weights, x)
            loss = tf.reduce_sum(total * upstream)
        return total, *tape.gradient(loss, (weights, x))

    total, of_weights, of_rows = run(tf.constant(weights), tf.constant(x))
    np.testing.assert_allclose(total, (weights[:, np.newaxis] * x).sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(of_weights, x @ upstream, atol=1e-12)
    np.testing.assert_allclose(of_rows, np.outer(weights, upstream), atol=1e-12)
