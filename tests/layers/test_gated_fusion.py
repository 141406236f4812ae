import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers.gated_fusion import GatedFusion

SHORT_TERM, LONG_TERM = tf.constant([1.0, -1.0]), tf.constant([2.0, 0.0])
GOLDEN = [0.7310585786300049, -0.2689414213699951, 1.7615941559557646, 0.0]


def test_golden_values_with_identity_gates():
    layer = GatedFusion()
    layer(SHORT_TERM, LONG_TERM)
    layer.set_weights([np.eye(2), np.eye(2)])
    np.testing.assert_allclose(layer(SHORT_TERM, LONG_TERM), GOLDEN, atol=1e-6)


def test_without_long_term_preference_the_first_part_is_left():
    layer = GatedFusion()
    layer(SHORT_TERM)
    layer.set_weights([np.eye(2)])
    np.testing.assert_allclose(layer(SHORT_TERM), GOLDEN[:2], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), leading=st.sampled_from([(), (1,), (3,), (2, 3)]))
def test_equals_the_printed_formula_on_any_leading_axes(seed, leading):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(*leading, 3)).astype(np.float32)
    r = rng.normal(size=(*leading, 5)).astype(np.float32)
    layer = GatedFusion()
    result = layer(f, r)
    w1, w2 = layer.get_weights()
    expected = np.concatenate([f / (1 + np.exp(-f @ w1)), r / (1 + np.exp(-r @ w2))], axis=-1)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_gate_looks_at_its_own_preference_alone():
    layer = GatedFusion()
    f, r = tf.random.normal([2, 3, 4]), tf.random.normal([2, 3, 6])
    both = layer(f, r)
    np.testing.assert_array_equal(layer(f, r + 1.0)[..., :4], both[..., :4])
    np.testing.assert_array_equal(layer(f + 1.0, r)[..., 4:], both[..., 4:])


def test_conformance_with_and_without_long_term_preference():
    f, r = tf.random.normal([2, 3, 4]), tf.random.normal([2, 3, 6])
    assert check_layer(GatedFusion(), f, r).shape == (2, 3, 10)
    alone = GatedFusion()
    assert check_layer(alone, f).shape == (2, 3, 4)
    assert alone.count_params() == 16
