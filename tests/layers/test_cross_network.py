import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden
from tests.layers.conformance import check_layer
from tfrec_feedback.layers import VectorCrossNetwork


@pytest.mark.parametrize("num_user", [0, 1])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_golden_vectors_can_be_read_through_output_weights_e_1_and_e_2(num_user, num_layers):
    """x_0 = (1, 2): x_1 = (1, 2) (1 * 0.5 - 2 * 0.25) + (0.1, 0) + (1, 2) = (1.1, 2)."""
    x0, layer = tf.constant(golden.CROSS_NETWORK["x0"]), VectorCrossNetwork(num_layers)
    inputs = x0[tf.newaxis, :num_user], x0[tf.newaxis, tf.newaxis, num_user:]
    layer(inputs)
    read = []
    for unit in np.eye(2):
        kernel = np.stack([*[golden.CROSS_NETWORK["kernel"]] * num_layers, unit], axis=1)
        layer.set_weights([kernel, np.array([golden.CROSS_NETWORK["bias"]] * num_layers)])
        read.append(layer(inputs).numpy().item())
    np.testing.assert_allclose(read, golden.CROSS_NETWORK[f"x{num_layers}"], rtol=1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 999),
    num_layers=st.integers(1, 4),
    context=st.integers(0, 3),
    candidates=st.integers(1, 3),
)
def test_the_score_is_that_of_the_recurrence_with_every_x_formed(
    seed, num_layers, context, candidates
):
    rng = np.random.default_rng(seed)
    user = rng.normal(size=(2, context)).astype(np.float32)
    items = rng.normal(size=(2, candidates, 2)).astype(np.float32)
    layer = VectorCrossNetwork(num_layers)
    layer((user, items))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    kernel, bias = (w.astype(np.float64) for w in layer.get_weights())
    for r in range(2):
        for n in range(candidates):
            x = first = np.concatenate([user[r], items[r, n]]).astype(np.float64)
            for depth in range(num_layers):
                x = first * (x @ kernel[:, depth]) + bias[depth] + x
            expected = x @ kernel[:, -1]
            found = float(layer((user, items))[r, n])
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_every_weight_is_trained():
    layer = VectorCrossNetwork(2)
    inputs = tf.random.stateless_normal([2, 3], (0, 1)), tf.ones([2, 4, 2])
    layer(inputs)
    layer.set_weights([np.full(w.shape, 0.1) for w in layer.get_weights()])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs))
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert (np.abs(gradient) > 0.0).all()


def test_conformance_with_and_without_context():
    assert check_layer(VectorCrossNetwork(3), (tf.ones([2, 3]), tf.ones([2, 5, 4]))).shape == (2, 5)
    assert check_layer(VectorCrossNetwork(), (tf.ones([1, 0]), tf.ones([1, 1, 4]))).shape == (1, 1)


def test_at_least_one_layer_is_needed():
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        VectorCrossNetwork(0)
