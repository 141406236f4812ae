import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import DFN_EXTERNAL as GOLDEN
from tests.layers import reference
from tests.layers.conformance import check_layer
from tfrec_feedback.layers import ExternalFeedbackInteraction

INSTRUCTOR = tf.constant([[GOLDEN["instructor"]]])
BEHAVIOURS = tf.constant([GOLDEN["behaviours"]])


def golden_layer(**options):
    """score = ReLU(g . u)"""
    layer = ExternalFeedbackInteraction(hidden_units=1, **options)
    layer.build((None, None, 2))
    kernel = np.zeros((8, 1))
    kernel[6:] = 1.0
    layer.set_weights([np.asarray(w) for w in (kernel, [0.0], [[1.0]], [0.0])])
    return layer


@pytest.mark.parametrize(
    ("options", "n", "key"),
    [
        ({}, 3, "softmax"),
        ({"normalization": "linear"}, 3, "linear"),
        ({}, 2, "third_masked"),
        ({"score_scale": 2**-0.5}, 3, "scaled_by_sqrt_2"),
        ({}, 0, "empty"),
        ({"normalization": "linear"}, 0, "empty"),
    ],
)
def test_golden_values(options, n, key):
    result = golden_layer(**options)(INSTRUCTOR, BEHAVIOURS, tf.constant([n]))
    np.testing.assert_allclose(result[0, 0], GOLDEN[key], atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    requests=st.integers(1, 3),
    candidates=st.integers(1, 4),
    length=st.integers(1, 6),
)
def test_split_layer_equals_the_printed_equations(seed, requests, candidates, length):
    rng = np.random.default_rng(seed)
    layer = ExternalFeedbackInteraction(hidden_units=5)
    g = rng.normal(size=(requests, candidates, 4)).astype(np.float32)
    u = rng.normal(size=(requests, length, 4)).astype(np.float32)
    lengths = rng.integers(0, length + 1, requests)
    result = layer(g, u, tf.constant(lengths)).numpy()
    weights = layer.get_weights()
    for r in range(requests):
        for n in range(candidates):
            printed = reference.external(g[r, n], u[r, : lengths[r]], weights)
            np.testing.assert_allclose(result[r, n], printed, atol=1e-5)


@pytest.mark.parametrize("normalization", ["softmax", "linear", "softplus"])
def test_empty_histories_give_zero_and_no_gradient(normalization):
    layer = ExternalFeedbackInteraction(3, normalization)
    g = tf.Variable(tf.random.normal([2, 2, 4]))
    with tf.GradientTape() as tape:
        result = layer(g, tf.random.normal([2, 3, 4]), tf.constant([0, 0]))
        total = tf.reduce_sum(result)
    np.testing.assert_array_equal(result, np.zeros([2, 2, 4]))
    np.testing.assert_array_equal(tape.gradient(total, g), np.zeros([2, 2, 4]))


@pytest.mark.parametrize("normalization", ["softmax", "linear", "softplus"])
def test_conformance(normalization):
    layer = ExternalFeedbackInteraction(3, normalization)
    check_layer(layer, tf.ones([1, 1, 4]), tf.ones([1, 3, 4]), tf.constant([0]))
    check_layer(layer, tf.ones([2, 3, 4]), tf.ones([2, 3, 4]), tf.constant([3, 1]))


def test_a_history_of_width_zero_counts_as_empty():
    result = golden_layer()(INSTRUCTOR, tf.zeros([1, 0, 2]), tf.constant([0]))
    np.testing.assert_array_equal(result, np.zeros([1, 1, 2]))


def test_padding_does_not_change_the_result():
    layer = ExternalFeedbackInteraction(3)
    g, u, lengths = tf.ones([2, 3, 4]), tf.random.normal([2, 5, 4]), tf.constant([5, 2])
    garbage = tf.concat([u, tf.fill([2, 4, 4], 1e4)], axis=1)
    np.testing.assert_allclose(layer(g, garbage, lengths), layer(g, u, lengths), atol=1e-6)


def test_parameter_count_is_that_of_the_paper():
    layer = ExternalFeedbackInteraction()
    layer.build((None, None, 64))
    assert 2 * layer.count_params() == 16_514


def test_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="normalization must be"):
        ExternalFeedbackInteraction(normalization="sum")


def test_a_hidden_layer_of_no_units_is_refused():
    with pytest.raises(ValueError, match="hidden_units must be at least 1, got 0"):
        ExternalFeedbackInteraction(hidden_units=0)
