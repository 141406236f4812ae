import numpy as np
import pytest
import tensorflow as tf

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import ResumableDropout


def test_drops_a_share_in_training_and_keeps_the_mean():
    layer = ResumableDropout(0.25, seed=1)
    dropped = layer(tf.ones([10_000]), training=True).numpy()
    np.testing.assert_allclose(np.unique(dropped), [0.0, 4 / 3], rtol=1e-6)
    assert dropped.mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(layer(tf.ones([9])), np.ones(9))


def test_every_call_drops_other_values_and_a_restored_counter_repeats_them():
    layer = ResumableDropout(0.5, seed=1)
    step = tf.function(lambda: layer(tf.ones([50]), training=True))
    layer(tf.ones([50]))
    weights = layer.get_weights()
    first, second = step().numpy(), step().numpy()
    assert (first != second).any()
    layer.set_weights(weights)
    np.testing.assert_array_equal(step(), first)
    np.testing.assert_array_equal(step(), second)


def test_conformance_and_no_weight_without_dropout():
    check_layer(ResumableDropout(0.5), tf.ones([2, 3]))
    layer = ResumableDropout(0.0)
    np.testing.assert_array_equal(layer(tf.ones([4]), training=True), np.ones(4))
    assert layer.weights == []
    with pytest.raises(ValueError, match="rate must be in"):
        ResumableDropout(1.0)
