import numpy as np
import pytest
import tensorflow as tf

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import WideFMDeep, bi_interaction


def inputs(requests=2, candidates=3):
    rng = np.random.default_rng(0)
    shapes = [
        (requests, 4, 5),
        (requests, candidates, 3, 5),
        (requests, 4),
        (requests, candidates, 2),
    ]
    return tuple(tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes)


def test_bi_interaction_is_the_sum_of_products_of_pairs():
    vectors = tf.constant([[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]])
    result = bi_interaction(tf.reduce_sum(vectors, 0), tf.reduce_sum(vectors**2, 0))
    np.testing.assert_allclose(result, [3.0, 2.0])


def test_shared_parts_equal_the_printed_equations_of_each_candidate():
    layer = WideFMDeep(deep_units=(6, 4))
    context, candidates, wide_context, wide_candidates = inputs()
    result = layer((context, candidates, wide_context, wide_candidates)).numpy()
    w0, b0, w1, b1 = layer.get_weights()
    for r in range(2):
        for n in range(3):
            vectors = np.concatenate([context[r], candidates[r, n]])
            pairs = [vectors[i] * vectors[j] for i in range(7) for j in range(i)]
            deep = np.maximum(np.maximum(vectors.reshape(-1) @ w0 + b0, 0) @ w1 + b1, 0)
            wide = np.concatenate([wide_context[r], wide_candidates[r, n]])
            expected = np.concatenate([wide, np.sum(pairs, axis=0), deep])
            np.testing.assert_allclose(result[r, n], expected, atol=1e-5)


def test_conformance_down_to_one_request_and_one_candidate():
    layer = WideFMDeep(deep_units=(6, 4))
    check_layer(layer, inputs())
    check_layer(layer, inputs(1, 1))


def test_parameter_count_is_that_of_the_paper():
    layer = WideFMDeep()
    # m = 47 fields, here 40 of the user and 7 of the item, and five feedback vectors.
    result = layer(
        (tf.zeros([1, 40, 64]), tf.zeros([1, 1, 12, 64]), tf.zeros([1, 40]), tf.zeros([1, 1, 7]))
    )
    assert layer.count_params() == 107_056
    assert result.shape[-1] == 127


def test_deep_units_must_not_be_empty():
    for units in ((), (0,), (8, -1)):
        with pytest.raises(ValueError, match="deep_units needs at least one width, none below 1"):
            WideFMDeep(deep_units=units)


def test_a_request_without_context_fields_is_scored_in_a_graph():
    """oneDNN ends the process on a fused product of inner width 0 and a bias."""
    layer = WideFMDeep(deep_units=(3,))
    inputs = (tf.ones([2, 0, 4]), tf.ones([2, 5, 6, 4]), tf.ones([2, 0]), tf.ones([2, 5, 3]))
    np.testing.assert_allclose(tf.function(layer)(inputs), layer(inputs), atol=1e-5)
