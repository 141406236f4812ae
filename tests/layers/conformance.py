"""What every layer and model must do, so that a new one costs a few lines of test."""

import numpy as np
import tensorflow as tf


def check_layer(layer, *inputs):
    """Config round trip with equal weights gives equal results; eager = graph; finite gradients."""
    eager = layer(*inputs)
    graph = tf.function(layer)(*inputs)
    assert_close(graph, eager, 1e-6)
    twin = type(layer).from_config(layer.get_config())
    twin(*inputs)
    twin.set_weights(layer.get_weights())
    assert_close(twin(*inputs), eager, 0.0)
    with tf.GradientTape() as tape:
        loss = tf.add_n(
            [
                tf.reduce_sum(x)
                for x in tf.nest.flatten(layer(*inputs), expand_composites=True)
                if x.dtype.is_floating
            ]
        )
    for gradient in tape.gradient(loss, layer.trainable_variables):
        if gradient is not None:
            values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
            assert np.isfinite(values.numpy()).all()
    return eager


def assert_close(actual, expected, tolerance):
    for a, e in zip(tf.nest.flatten(actual, True), tf.nest.flatten(expected, True), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(e), rtol=tolerance, atol=tolerance)
