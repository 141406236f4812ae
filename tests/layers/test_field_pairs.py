import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden
from tests.layers.conformance import check_layer
from tests.layers.reference import softmax
from tfrec_feedback.layers import (
    FieldPairs,
    InnerProducts,
    OuterProducts,
    PairAttention,
    request_bi_interaction,
)

SIZES = {"num_user": st.integers(0, 3), "num_items": st.integers(1, 3), "seed": st.integers(0, 999)}


def golden_inputs(num_user):
    """The three golden fields, the first ones the user's."""
    vectors = tf.constant(golden.FIELD_PAIRS["vectors"])
    return vectors[tf.newaxis, :num_user], vectors[tf.newaxis, tf.newaxis, num_user:]


def random_inputs(seed, num_user, num_items, requests=2, candidates=3, width=2):
    rng = np.random.default_rng(seed)
    user = rng.normal(size=(requests, num_user, width)).astype(np.float32)
    return user, rng.normal(size=(requests, candidates, num_items, width)).astype(np.float32)


def joined(user, candidates):
    """The user's part repeated beside that of every candidate: `[R, N, P, ...]`."""
    user, candidates = np.array(user), np.array(candidates)
    repeated = np.repeat(user[:, np.newaxis], candidates.shape[1], axis=1)
    return np.concatenate([repeated, candidates], axis=2)


def loop(inputs, product):
    """`product(i, j, v_i, v_j)` of every pair of fields of every candidate, in sorted order."""
    fields = joined(*inputs)
    found = []
    for r in range(fields.shape[0]):
        for n in range(fields.shape[1]):
            v = fields[r, n]
            pairs = [(i, j) for i in range(len(v)) for j in range(i + 1, len(v))]
            found.append([product(i, j, v[i], v[j]) for i, j in pairs])
    if not pairs:
        return np.zeros([*fields.shape[:2], 0, 1])
    return np.array(found).reshape(*fields.shape[:2], len(pairs), -1)


def same_pairs(actual, expected):
    """Whether the pairs of every candidate are the same, in whatever order."""
    assert np.size(actual) == expected.size
    actual = np.reshape(actual, expected.shape)
    for found, wanted in zip(np.vstack(actual), np.vstack(expected), strict=True):
        order = [x[np.lexsort(x.T)] for x in (np.round(found, 4), np.round(wanted, 4))]
        np.testing.assert_allclose(*order, atol=2e-4)


@pytest.mark.parametrize("num_user", [0, 1, 2])
def test_the_golden_products_come_out_whosever_the_fields_are(num_user):
    inputs = golden_inputs(num_user)
    products = joined(*FieldPairs()(inputs))[0, 0]
    np.testing.assert_allclose(products, golden.FIELD_PAIRS["products"])
    np.testing.assert_allclose(joined(*InnerProducts()(inputs))[0, 0], golden.FIELD_PAIRS["inner"])
    bi_interaction = request_bi_interaction(*inputs)[0, 0]
    np.testing.assert_allclose(bi_interaction, golden.FIELD_PAIRS["bi_interaction"])
    np.testing.assert_allclose(products.sum(axis=0), bi_interaction)
    assert float(tf.reduce_sum(bi_interaction)) == golden.FIELD_PAIRS["factorization_machine"]


@pytest.mark.parametrize("num_user", [0, 1, 2])
def test_attention_over_the_golden_pairs(num_user):
    """With W = (1, 1) and h = 1 the score of a pair is ReLU of the sum of its product."""
    pairs, layer = FieldPairs()(golden_inputs(num_user)), PairAttention(1)
    layer(pairs)
    layer.set_weights([np.ones([1, 1]), np.ones([2, 1]), np.zeros(1)])
    np.testing.assert_allclose(layer(pairs)[0, 0], golden.FIELD_PAIRS["pooled"], rtol=1e-5)
    weights = np.array(golden.FIELD_PAIRS["attention"])
    by_hand = weights @ np.array(golden.FIELD_PAIRS["products"])
    np.testing.assert_allclose(by_hand, golden.FIELD_PAIRS["pooled"])
    scores = softmax(np.array(golden.FIELD_PAIRS["attention_scores"]))
    np.testing.assert_allclose(scores, weights)


@settings(max_examples=20)
@given(**SIZES)
def test_products_are_those_of_a_loop_over_pairs(num_user, num_items, seed):
    inputs = random_inputs(seed, num_user, num_items)
    products = joined(*FieldPairs()(inputs))
    same_pairs(products, loop(inputs, lambda i, j, a, b: a * b))
    same_pairs(joined(*InnerProducts()(inputs)), loop(inputs, lambda i, j, a, b: a @ b))
    total = joined(*inputs).sum(axis=2)
    user, flat = OuterProducts()(inputs)
    assert user.shape == (2, 0)
    outer = total[..., :, np.newaxis] * total[..., np.newaxis, :]
    np.testing.assert_allclose(flat, outer.reshape(2, 3, 4), atol=1e-5)


@settings(max_examples=20)
@given(**SIZES)
def test_pairwise_outer_products_have_a_kernel_for_each_pair(num_user, num_items, seed):
    inputs, layer = random_inputs(seed, num_user, num_items), OuterProducts("pairwise")
    layer(inputs)
    size, items = num_user + num_items, range(num_user, num_user + num_items)
    order = [(i, j) for i in range(num_user) for j in range(i + 1, num_user)]
    order += [(i, j) for i in range(num_user) for j in items]
    order += [(i, j) for i in items for j in range(i + 1, size)]
    kernels = np.random.default_rng(seed).normal(size=(len(order), 2, 2)).astype(np.float32)
    layer.set_weights([kernels])
    expected = loop(inputs, lambda i, j, a, b: a @ kernels[order.index((i, j))] @ b)
    same_pairs(joined(*layer(inputs)), expected)


@settings(max_examples=20)
@given(**SIZES, large=st.sampled_from([1.0, 100.0]))
def test_attention_is_one_softmax_over_all_pairs(num_user, num_items, seed, large):
    """Logits of the large case are some 10^4 apart: exponentials alone would overflow."""
    pairs, layer = FieldPairs()(random_inputs(seed, num_user, num_items)), PairAttention(4)
    pairs = tuple(large * x for x in pairs)
    layer(pairs)
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) * large**0.5 for w in layer.get_weights()])
    if num_user + num_items == 1:
        np.testing.assert_array_equal(layer(pairs), np.zeros([2, 3, 2]))
        return
    projection, kernel, bias = (w.astype(np.float64) for w in layer.get_weights())
    products = joined(*pairs).astype(np.float64)
    logits = np.maximum(products @ kernel + bias, 0.0) @ projection
    expected = np.zeros([2, 3, 2])
    for at in np.ndindex(2, 3):
        expected[at] = softmax(logits[at][:, 0]) @ products[at]
    found = layer(pairs)
    assert np.isfinite(found).all()
    if large == 1.0:
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_logits_too_large_for_an_exponential_pick_the_pair_of_the_largest():
    """Products -1 of the user, 1 and 2 of the candidate have hidden units 0, 10^4 and 2 * 10^4."""
    pairs, layer = (tf.constant([[[-1.0]]]), tf.constant([[[[1.0], [2.0]]]])), PairAttention(1)
    layer(pairs)
    for projection, largest in ((1.0, 2.0), (-1.0, -1.0)):
        layer.set_weights([np.full([1, 1], projection), np.full([1, 1], 1e4), np.zeros(1)])
        np.testing.assert_allclose(layer(pairs), [[[largest]]])


def test_gradients_are_finite_without_a_pair_of_the_users_own():
    inputs = [tf.Variable(x) for x in random_inputs(0, 1, 2)]
    layer = PairAttention(2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(FieldPairs()(inputs)))
    for gradient in tape.gradient(loss, inputs):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0.0


def test_attention_drops_weights_in_training_only():
    pairs = FieldPairs()(random_inputs(0, 2, 2))
    layer = PairAttention(2, dropout=0.5)
    np.testing.assert_array_equal(layer(pairs), layer(pairs, training=False))
    assert np.abs(layer(pairs, training=True) - layer(pairs)).max() > 1e-3


@pytest.mark.parametrize("num_user", [0, 1, 3])
def test_conformance(num_user):
    inputs = tuple(tf.constant(x) for x in random_inputs(0, num_user, 2))
    for layer in (FieldPairs(), InnerProducts(), OuterProducts(), OuterProducts("pairwise")):
        check_layer(layer, inputs)
    check_layer(PairAttention(4, 0.1), FieldPairs()(inputs))


def test_the_form_must_be_known():
    with pytest.raises(ValueError, match="form must be 'superposition' or 'pairwise', got 'sum'"):
        OuterProducts("sum")


def test_an_attention_of_no_units_is_refused():
    with pytest.raises(ValueError, match="units must be at least 1, got 0"):
        PairAttention(0)
