import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden
from tests.layers.conformance import assert_close, check_layer
from tests.layers.reference import softmax
from tfrec_feedback.layers import InteractingLayer


def random_inputs(seed, num_user, num_items, requests=2, candidates=3, width=4, scale=1.0):
    rng = np.random.default_rng(seed)
    user = rng.normal(0, scale, (requests, num_user, width)).astype(np.float32)
    items = rng.normal(0, scale, (requests, candidates, num_items, width)).astype(np.float32)
    return tf.constant(user), tf.constant(items)


def matrix(user, items):
    """All fields of every candidate, the user's repeated: `[R, N, F + G, D]`."""
    repeated = tf.repeat(user[:, tf.newaxis], items.shape[1], axis=1)
    return tf.concat([repeated, items], axis=2)


@pytest.mark.parametrize("num_user", [None, 0, 1])
def test_the_golden_fields_attend_to_each_other(num_user):
    """Scores of row (1, 0) with identity kernels: 1 and 0, so weights 0.731059, 0.268941."""
    fields, layer = tf.constant(golden.INTERACTING["fields"]), InteractingLayer(2, num_heads=1)
    if num_user is None:
        inputs = fields[tf.newaxis, tf.newaxis]
    else:
        inputs = fields[tf.newaxis, :num_user], fields[tf.newaxis, tf.newaxis, num_user:]
    layer(inputs)
    layer.set_weights([np.eye(2)] * 4)
    np.testing.assert_allclose(layer(inputs)[0, 0], golden.INTERACTING["output"], rtol=1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 999),
    num_user=st.integers(0, 3),
    num_items=st.integers(1, 3),
    candidates=st.integers(1, 3),
    num_heads=st.integers(1, 2),
    use_residual=st.booleans(),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_sharing_the_users_part_of_the_softmax_changes_nothing(
    seed, num_user, num_items, candidates, num_heads, use_residual, scale
):
    user, items = random_inputs(seed, num_user, num_items, candidates=candidates, scale=scale)
    layer = InteractingLayer(3, num_heads, use_residual)
    shared = layer((user, items))
    assert shared.shape == (2, candidates, num_user + num_items, 3 * num_heads)
    assert_close(shared / scale, layer(matrix(user, items)) / scale, 2e-4)


def test_heads_attend_alone_and_stand_side_by_side():
    """One field of every head by hand, without residuals."""
    user, items = random_inputs(4, 2, 1)
    layer = InteractingLayer(3, num_heads=2, use_residual=False)
    found = layer((user, items))[1, 2]
    fields = matrix(user, items).numpy()[1, 2].astype(np.float64)
    query, key, value = (fields @ kernel for kernel in layer.get_weights())
    for head in (slice(0, 3), slice(3, 6)):
        for k in range(3):
            weights = softmax(key[:, head] @ query[k, head])
            expected = np.maximum(weights @ value[:, head], 0.0)
            np.testing.assert_allclose(found[k, head], expected, atol=1e-5)


def test_both_forms_have_the_same_gradients():
    user, items = (tf.Variable(x) for x in random_inputs(1, 2, 2))
    layer = InteractingLayer(3)
    found = []
    for form in (lambda a, b: (a, b), matrix):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(form(user, items))))
        found.append(tape.gradient(loss, [user, items, *layer.trainable_variables]))
    assert all(np.abs(gradient).max() > 0.0 for gradient in found[0])
    assert_close(found[0], found[1], 1e-4)


def test_scores_too_large_for_an_exponential_stay_finite():
    user, items = (1e3 * x for x in random_inputs(2, 2, 2))
    layer = InteractingLayer(3)
    assert np.isfinite(layer((user, items))).all()
    assert np.isfinite(layer(matrix(user, items))).all()


@pytest.mark.parametrize("num_user", [0, 1, 3])
def test_conformance_of_both_forms(num_user):
    inputs = random_inputs(0, num_user, 2)
    check_layer(InteractingLayer(3), inputs)
    check_layer(InteractingLayer(3, 1, False), matrix(*inputs))


@pytest.mark.parametrize(("units", "heads"), [(0, 2), (4, 0)])
def test_widths_and_heads_must_be_positive(units, heads):
    with pytest.raises(ValueError, match=f"must be positive, got {units} and {heads}"):
        InteractingLayer(units, heads)
