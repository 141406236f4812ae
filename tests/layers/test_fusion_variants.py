import numpy as np
import pytest
import tensorflow as tf

from tests.layers.conformance import check_layer
from tfrec_feedback.layers.fusion_variants import FUSIONS

F, R = np.float32([1.0, -2.0]), np.float32([3.0, 0.5, -1.0])
PROJECTION = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])  # F P = (1, -2, 0)
WIDTHS = {"gate": 10, "concat": 10, "cross": 18, "ffn": 10, "attention": 6}


def with_weights(name, *weights):
    layer = FUSIONS[name]()
    layer(F, R)
    layer.set_weights(weights)
    return layer


def test_concat_puts_both_side_by_side():
    np.testing.assert_array_equal(with_weights("concat")(F, R), [1.0, -2.0, 3.0, 0.5, -1.0])


def test_cross_is_sum_difference_and_product_by_hand():
    result = with_weights("cross", PROJECTION)(F, R)
    expected = [4.0, -1.5, -1.0, -2.0, -2.5, 1.0, 3.0, -1.0, 0.0]
    np.testing.assert_allclose(result, expected)


def test_ffn_is_one_relu_layer_each_by_hand():
    weights = [2 * np.eye(2), np.array([0.5, 0.5]), -np.eye(3), np.array([4.0, 0.0, 0.0])]
    result = with_weights("ffn", *weights)(F, R)
    np.testing.assert_allclose(result, [2.5, 0.0, 1.0, 0.0, 1.0])


def test_attention_weighs_both_tokens_by_hand():
    v = np.array([[1.0], [0.0], [0.0]])
    result = with_weights("attention", PROJECTION, np.eye(3), v)(F, R)
    of_short_term = 1 / (1 + np.exp(np.tanh(3.0) - np.tanh(1.0)))
    expected = of_short_term * np.array([1.0, -2.0, 0.0]) + (1 - of_short_term) * R
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_attention_without_preference_of_its_own_is_the_mean():
    result = with_weights("attention", PROJECTION, np.zeros((3, 3)), np.ones((3, 1)))(F, R)
    np.testing.assert_allclose(result, [2.0, -0.75, -0.5], atol=1e-6)


@pytest.mark.parametrize("name", FUSIONS)
def test_conformance_on_requests_with_candidates(name):
    f, r = tf.random.normal([2, 3, 4]), tf.random.normal([2, 3, 6])
    layer = FUSIONS[name]()
    result = check_layer(layer, f, r)
    assert result.shape == (2, 3, WIDTHS[name])
    np.testing.assert_allclose(layer(f[:1, :1], r[:1, :1])[0, 0], result[0, 0], atol=1e-6)
    np.testing.assert_allclose(layer(f[1, 2], r[1, 2]), result[1, 2], atol=1e-6)


@pytest.mark.parametrize("name", sorted(FUSIONS.keys() - {"gate"}))
def test_variants_need_a_long_term_preference(name):
    with pytest.raises(ValueError, match="Expected a long-term preference, got None"):
        FUSIONS[name]()(tf.ones([2, 4]), None)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_saved_model_is_read_back_with_equal_results(name, tmp_path):
    inputs = tf.keras.Input([None, 4]), tf.keras.Input([None, 6])
    model = tf.keras.Model(inputs, FUSIONS[name]()(*inputs))
    values = tf.random.normal([2, 3, 4]), tf.random.normal([2, 3, 6])
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(values), model(values))
