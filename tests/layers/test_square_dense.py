import numpy as np
import tensorflow as tf

from tests.layers.conformance import check_layer
from tfrec_feedback.layers.square_dense import SquareDense


def test_square_dense_keeps_the_width_it_is_given():
    layer = SquareDense("relu")
    x = tf.constant([[1.0, 2.0]])
    layer(x)
    layer.set_weights([np.array([[1.0, -1.0], [3.0, 0.0]]), np.array([0.5, 0.25])])
    np.testing.assert_allclose(layer(x), [[7.5, 0.0]])
    check_layer(SquareDense("tanh", use_bias=False), tf.ones([2, 3, 4]))
