import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import DFN_INTERNAL as GOLDEN
from tests.layers import reference
from tests.layers.conformance import check_layer
from tfrec_feedback.layers import InternalFeedbackInteraction

TARGET = tf.constant([[GOLDEN["target"]]])


def with_identity(**options):
    layer = InternalFeedbackInteraction(**{"num_heads": 1, **options})
    layer.build((None, None, 2))
    layer.set_weights([np.eye(2)] * len(layer.weights))
    return layer


def behaviours(n, padded=0, fill=7.0):
    rows = GOLDEN["behaviours"][:n] + [[fill, -fill]] * padded
    return tf.reshape(tf.constant(rows, tf.float32), [1, n + padded, 2])


@pytest.mark.parametrize("padded", [0, 3])
@pytest.mark.parametrize(
    ("options", "n", "key"),
    [
        ({}, 2, "mean"),
        ({"pooling": "sum"}, 2, "sum"),
        ({"num_heads": 2}, 2, "two_heads"),
        ({"num_heads": 2, "attention_scale": "head"}, 2, "two_heads_head_scale"),
        ({}, 0, "no_behaviour"),
        ({}, 1, "one_behaviour"),
    ],
)
def test_golden_values(options, n, key, padded):
    result = with_identity(**options)(TARGET, behaviours(n, padded), tf.constant([n]))
    np.testing.assert_allclose(result[0, 0], GOLDEN[key], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_heads=st.sampled_from([1, 2, 4]),
    requests=st.integers(1, 3),
    candidates=st.integers(1, 4),
    length=st.integers(1, 6),
    magnitude=st.sampled_from([0.1, 1.0, 4.0]),
    official=st.booleans(),
)
def test_shared_form_equals_the_printed_equations(
    seed, num_heads, requests, candidates, length, magnitude, official
):
    rng = np.random.default_rng(seed)
    options = {"use_output": False, "pooling": "sum", "ffn_multiplier": 2} if official else {}
    layer = InternalFeedbackInteraction(num_heads, **options)
    t = rng.normal(0, magnitude, (requests, candidates, 8)).astype(np.float32)
    c = rng.normal(0, magnitude, (requests, length, 8)).astype(np.float32)
    lengths = rng.integers(0, length + 1, requests)
    shared = layer(t, c, tf.constant(lengths)).numpy()
    weights = [w.numpy().astype(np.float64) for w in layer.weights]
    transform = None
    if official:
        kernels = [*weights[:3], None]
        w1, b1, w2, b2 = weights[3:]
        transform = lambda rows: np.maximum(rows @ w1 + b1, 0) @ w2 + b2  # noqa: E731
    else:
        kernels = weights
    for r in range(requests):
        for n in range(candidates):
            printed = reference.internal(
                t[r, n].astype(np.float64), c[r, : lengths[r]].astype(np.float64),
                kernels, num_heads, 8**0.5, transform, "sum" if official else "mean",
            )  # fmt: skip
            scale = max(1.0, np.abs(printed).max())
            np.testing.assert_allclose(shared[r, n] / scale, printed / scale, atol=1e-5)


def test_padding_does_not_change_the_result():
    layer = InternalFeedbackInteraction(2)
    t, c = tf.random.normal([2, 3, 4]), tf.random.normal([2, 5, 4])
    lengths = tf.constant([5, 0])
    garbage = tf.concat([c, tf.fill([2, 4, 4], 1e4)], axis=1)
    np.testing.assert_allclose(layer(t, garbage, lengths), layer(t, c, lengths), atol=1e-6)


def test_order_of_behaviours_does_not_matter():
    layer = InternalFeedbackInteraction(2)
    t, c = tf.random.normal([1, 3, 4]), tf.random.normal([1, 5, 4])
    swapped = tf.gather(c, [4, 2, 0, 1, 3], axis=1)
    lengths = tf.constant([5])
    np.testing.assert_allclose(layer(t, swapped, lengths), layer(t, c, lengths), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"use_output": False, "ffn_multiplier": 4}])
def test_conformance_with_one_candidate_and_empty_histories(options):
    layer = InternalFeedbackInteraction(2, **options)
    result = check_layer(layer, tf.ones([1, 1, 4]), tf.ones([1, 3, 4]), tf.constant([0]))
    assert np.isfinite(result).all()
    check_layer(layer, tf.ones([2, 3, 4]), tf.ones([2, 3, 4]), tf.constant([3, 1]))


def test_a_history_of_width_zero_counts_as_empty():
    layer = with_identity()
    result = layer(TARGET, tf.zeros([1, 0, 2]), tf.constant([0]))
    np.testing.assert_allclose(result[0, 0], GOLDEN["no_behaviour"], atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_without_behaviours_the_target_goes_through_the_network_whatever_the_width(pooling):
    layer = InternalFeedbackInteraction(2, pooling=pooling, use_output=False, ffn_multiplier=2)
    t = tf.random.normal([2, 3, 4])
    padded = layer(t, tf.ones([2, 3, 4]), tf.constant([0, 0]))
    first, first_bias, second, second_bias = (w.numpy() for w in layer.weights[3:])
    values = t.numpy() @ layer.value_kernel.numpy()
    expected = np.maximum(values @ first + first_bias, 0) @ second + second_bias
    np.testing.assert_allclose(padded, expected, rtol=1e-5, atol=1e-6)
    for call in (layer, tf.function(layer)):
        nothing = call(t, tf.zeros([2, 0, 4]), tf.constant([0, 0]))
        np.testing.assert_allclose(nothing, padded, rtol=1e-5, atol=1e-6)


def test_numpy_arrays_are_taken_as_they_are():
    result = with_identity()(TARGET.numpy(), np.array(behaviours(2), np.float64), np.array([2]))
    np.testing.assert_allclose(result[0, 0], GOLDEN["mean"], atol=1e-6)


def test_extreme_logits_stay_finite():
    layer = with_identity()
    result = layer(TARGET * 1e3, behaviours(2) * 1e3, tf.constant([2]))
    assert np.isfinite(result).all()


def test_parameter_count_is_that_of_the_paper():
    layer = InternalFeedbackInteraction(4)
    layer.build((None, None, 64))
    assert 3 * layer.count_params() == 49_152


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide the width"),
        ({"num_heads": 0}, "num_heads must be at least 1"),
        ({"num_heads": 1, "ffn_multiplier": -1}, "ffn_multiplier must not be negative"),
        ({"num_heads": 1, "attention_scale": "sqrt"}, "attention_scale must be"),
        ({"num_heads": 1, "pooling": "max"}, "pooling must be"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InternalFeedbackInteraction(**options).build((None, None, 64))
