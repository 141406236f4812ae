import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers.split_dense import SplitDense


def test_a_context_of_one_and_a_candidate_of_two_by_hand():
    layer = SplitDense(1, activation="relu")
    inputs = (tf.constant([[2.0]]), tf.constant([[[1.0, 3.0], [4.0, 0.0]]]))
    layer(inputs)
    layer.set_weights([np.array([[10.0], [1.0], [-9.0]]), np.array([0.5])])
    # 2 * 10 + 1 * 1 + 3 * -9 + 0.5 = -5.5, cut to 0; 2 * 10 + 4 * 1 + 0.5 = 24.5.
    np.testing.assert_allclose(layer(inputs), [[[0.0], [24.5]]])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    requests=st.integers(1, 3),
    candidates=st.integers(1, 4),
    context=st.integers(0, 5),
    activation=st.sampled_from([None, "relu", "tanh"]),
    use_bias=st.booleans(),
)
def test_equals_a_dense_layer_over_the_concatenation(
    seed, requests, candidates, context, activation, use_bias
):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(requests, context)).astype(np.float32)
    each = rng.normal(size=(requests, candidates, 3)).astype(np.float32)
    layer = SplitDense(4, activation, use_bias)
    result = layer((shared, each))
    dense = tf.keras.layers.Dense(4, activation, use_bias)
    dense.build((None, context + 3))
    dense.set_weights(layer.get_weights())
    repeated = np.repeat(shared[:, np.newaxis], candidates, axis=1)
    expected = dense(np.concatenate([repeated, each], axis=-1))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_the_kernel_starts_as_that_of_the_whole_concatenation():
    tf.keras.utils.set_random_seed(0)
    layer = SplitDense(50)
    layer((tf.zeros([1, 90]), tf.zeros([1, 1, 10])))
    limit = (6 / (100 + 50)) ** 0.5
    for rows in (layer.kernel[:90], layer.kernel[90:]):
        assert 0.95 * limit < np.abs(rows).max() <= limit


def test_conformance_with_and_without_context():
    inputs = tf.ones([2, 3]), tf.ones([2, 5, 4])
    assert check_layer(SplitDense(6, "relu"), inputs).shape == (2, 5, 6)
    assert check_layer(SplitDense(6), (tf.ones([1, 0]), tf.ones([1, 1, 4]))).shape == (1, 1, 6)


def test_a_graph_without_context_returns_the_bias_and_the_candidates_part():
    # oneDNN ends the process on a biased product of inner width 0, in graphs alone.
    layer = SplitDense(2)
    inputs = (tf.zeros([3, 0]), tf.ones([3, 2, 1]))
    layer(inputs)
    layer.set_weights([np.array([[2.0, 3.0]]), np.array([10.0, 20.0])])
    np.testing.assert_allclose(tf.function(layer)(inputs), np.tile([12.0, 23.0], (3, 2, 1)))


def test_units_must_be_positive():
    with pytest.raises(ValueError, match="units must be at least 1, got 0"):
        SplitDense(0)
