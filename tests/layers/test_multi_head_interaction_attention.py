import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers.multi_head_interaction_attention import MultiHeadInteractionAttention

ROWS = tf.constant([[1.0, 0.0], [0.0, 1.0]])
GOLDEN = {  # by a, what user and candidate add to every behaviour before the ReLU
    -0.2: [0.5027498923254441, 0.4972501076745559],
    2.0: [0.5294069207702571, 0.4705930792297429],
    5.0: [0.5294069207702572, 0.470593079229743],
    -5.0: [0.5, 0.5],
}


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def printed(user, candidate, e, kernels, num_heads, divisor, mlp=()):
    """The equations for one candidate and the valid behaviours `[n, E]`, as printed."""
    query, key, value, output, attention, *bias = kernels
    if len(e) == 0:
        return np.zeros(e.shape[1])
    width, heads = e.shape[1] // num_heads, []
    for h in range(num_heads):
        e_h = e[:, h * width : (h + 1) * width]
        logits = (e_h @ query[h]) @ (e_h @ key[h]).T / divisor
        heads.append(softmax(logits) @ (e_h @ value[h]))
    rows = np.concatenate(heads, axis=1) @ output
    alpha = np.zeros(len(rows))
    for j, row in enumerate(rows):
        hidden = np.concatenate([user, candidate, row]) @ attention + (bias[0] if bias else 0.0)
        hidden = np.maximum(hidden, 0.0)
        for matrix, offset in mlp:
            hidden = np.maximum(hidden @ matrix + offset, 0.0)
        alpha[j] = hidden[0]
    return softmax(alpha) @ rows


def random_inputs(seed=0, requests=2, candidates=3, length=5, width=4, users=3, items=2):
    rng = np.random.default_rng(seed)
    shapes = (requests, users), (requests, candidates, items), (requests, length, width)
    tensors = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return *tensors, rng.integers(0, length + 1, requests)


def golden(a, padding=0.0, **options):
    """f of two behaviours among T = 4, all kernels identities and w_O = (1, -1)."""
    behaviours = tf.concat([ROWS, tf.fill([2, 2], padding)], axis=0)[tf.newaxis]
    inputs = tf.constant([[a]]), tf.zeros([1, 1, 0]), behaviours, tf.constant([2])
    layer = MultiHeadInteractionAttention(1, **options)
    layer(*inputs)
    layer.set_weights([np.eye(2)[np.newaxis]] * 3 + [np.eye(2), np.array([[1.0], [1.0], [-1.0]])])
    return layer(*inputs)[0, 0].numpy()


@pytest.mark.parametrize("padding", [0.0, 1e30, np.inf, np.nan])
@pytest.mark.parametrize("a", GOLDEN)
def test_golden_values(a, padding):
    np.testing.assert_allclose(golden(a, padding), GOLDEN[a], atol=1e-6)


def test_the_target_cancels_where_every_behaviour_is_above_zero():
    np.testing.assert_allclose(golden(2.0), golden(5.0), atol=1e-6)
    assert np.abs(golden(2.0) - golden(-0.2)).max() > 0.02


def test_logits_are_divided_by_the_root_of_max_length_or_of_the_head_width():
    # T = 4 either way: an explicit 4 changes nothing, 16 and the head width 2 do.
    np.testing.assert_allclose(golden(5.0, max_length=4), GOLDEN[5.0], atol=1e-6)
    for options, divisor in (({"max_length": 16}, 4.0), ({"scale": "head"}, 2**0.5)):
        own = 1 / (1 + np.exp(-1 / divisor))  # weight of a behaviour for itself
        first = 1 / (1 + np.exp(-2 * (2 * own - 1)))  # x = +-(own - (1 - own))
        expected = first * own + (1 - first) * (1 - own)
        np.testing.assert_allclose(golden(5.0, **options), [expected, 1 - expected], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_heads=st.sampled_from([1, 2, 4]),
    requests=st.integers(1, 3),
    candidates=st.integers(1, 4),
    length=st.integers(1, 6),
    users=st.sampled_from([0, 3]),
    items=st.sampled_from([0, 2]),
    scale=st.sampled_from(["max_length", "head"]),
    hidden=st.sampled_from([(), (5,), (5, 3)]),
)
def test_equals_the_printed_equations_of_every_candidate(
    seed, num_heads, requests, candidates, length, users, items, scale, hidden
):
    inputs = random_inputs(seed, requests, candidates, length, 8, users, items)
    layer = MultiHeadInteractionAttention(num_heads, scale, attention_hidden=hidden)
    layer(*inputs)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.5, w.shape).astype(np.float32) for w in layer.weights]
    layer.set_weights(weights)
    result = layer(*inputs).numpy()
    kernels, deeper = (weights[:6], weights[6:]) if hidden else (weights, [])
    mlp = [*zip(deeper[:-1:2], deeper[1::2], strict=True), (deeper[-1], 0.0)] if hidden else []
    divisor = (length if scale == "max_length" else 8 / num_heads) ** 0.5
    user, items_, behaviours, lengths = inputs
    for r in range(requests):
        for n in range(candidates):
            valid = behaviours[r, : lengths[r]].astype(np.float64)
            expected = printed(user[r], items_[r, n], valid, kernels, num_heads, divisor, mlp)
            size = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(result[r, n] / size, expected / size, atol=2e-5)


@pytest.mark.parametrize("hidden", [(), (5,)])
class TestWithAndWithoutHiddenLayer:
    def layer(self, hidden):
        tf.keras.utils.set_random_seed(1)
        return MultiHeadInteractionAttention(2, max_length=5, attention_hidden=hidden)

    def test_neither_padding_nor_its_content_changes_the_result(self, hidden):
        layer = self.layer(hidden)
        user, items, behaviours, _ = random_inputs()
        lengths = np.array([3, 0])
        expected = layer(user, items, behaviours, lengths)
        wider = np.concatenate([behaviours, behaviours], axis=1)
        wider[0, 3:] = wider[1] = 1e30
        np.testing.assert_allclose(layer(user, items, wider, lengths), expected, atol=1e-6)

    def test_order_of_behaviours_does_not_matter(self, hidden):
        layer = self.layer(hidden)
        user, items, behaviours, _ = random_inputs()
        swapped = behaviours[:, [4, 2, 0, 1, 3]]
        full = np.array([5, 5])
        expected = layer(user, items, behaviours, full)
        np.testing.assert_allclose(layer(user, items, swapped, full), expected, atol=1e-6)

    def test_candidates_scored_together_equal_each_alone(self, hidden):
        layer = self.layer(hidden)
        user, items, behaviours, lengths = random_inputs(candidates=3)
        together = layer(user, items, behaviours, lengths)
        for n in range(3):
            alone = layer(user, items[:, n : n + 1], behaviours, lengths)
            np.testing.assert_allclose(alone[:, 0], together[:, n], atol=1e-6)

    def test_no_behaviours_give_exactly_zero_and_no_gradient(self, hidden):
        layer = self.layer(hidden)
        tensors = [tf.constant(x) for x in random_inputs()[:3]]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.reduce_sum(result := layer(*tensors, np.array([0, 0])))
        np.testing.assert_array_equal(result, np.zeros([2, 3, 4]))
        for gradient in tape.gradient(total, tensors + layer.trainable_variables):
            np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))

    def test_only_valid_behaviours_get_a_gradient(self, hidden):
        layer = self.layer(hidden)
        user, items, behaviours, _ = random_inputs()
        behaviours = tf.constant(behaviours)
        with tf.GradientTape() as tape:
            tape.watch(behaviours)
            total = tf.reduce_sum(layer(user, items, behaviours, np.array([2, 0])) ** 2)
        gradient = tape.gradient(total, behaviours).numpy()
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(np.abs(gradient).max(axis=2) > 0, [[1, 1, 0, 0, 0], [0] * 5])

    def test_conformance_down_to_one_request_and_one_candidate(self, hidden):
        assert check_layer(self.layer(hidden), *random_inputs()).shape == (2, 3, 4)
        check_layer(self.layer(hidden), *random_inputs(requests=1, candidates=1, length=1))
        check_layer(self.layer(hidden), *random_inputs(users=0, items=0))

    def test_a_history_of_width_zero_counts_as_empty(self, hidden):
        layer = self.layer(hidden)
        inputs = [tf.constant(x) for x in random_inputs(length=0)]
        for call in (layer, tf.function(layer)):
            np.testing.assert_array_equal(call(*inputs), np.zeros([2, 3, 4]))

    def test_a_saved_model_is_read_back_with_equal_results(self, hidden, tmp_path):
        shapes = [([3], "float32"), ([None, 2], "float32"), ([None, 4], "float32"), ([], "int64")]
        inputs = [tf.keras.Input(shape, dtype=dtype) for shape, dtype in shapes]
        model = tf.keras.Model(inputs, self.layer(hidden)(*inputs))
        values = [tf.constant(x) for x in random_inputs()]
        model.save(tmp_path / "model.keras")
        again = tf.keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again(values), model(values))


def test_first_built_inside_a_graph_equals_eager():
    layer = MultiHeadInteractionAttention(2, attention_hidden=(5, 3))
    inputs = [tf.constant(x) for x in random_inputs()]
    graph = tf.function(layer)(*inputs)
    np.testing.assert_allclose(layer(*inputs), graph, atol=1e-6)


def test_numpy_arrays_of_64_bits_are_taken_as_they_are():
    layer, (*arrays, lengths) = MultiHeadInteractionAttention(2), random_inputs()
    wide = [array.astype(np.float64) for array in arrays]
    np.testing.assert_allclose(layer(*wide, lengths), layer(*arrays, lengths), atol=1e-6)


def test_extreme_logits_stay_finite():
    layer, (*arrays, lengths) = MultiHeadInteractionAttention(2), random_inputs()
    assert np.isfinite(layer(*(1e3 * array for array in arrays), lengths)).all()


def test_each_head_starts_as_a_dense_layer_of_its_width():
    tf.keras.utils.set_random_seed(0)
    layer = MultiHeadInteractionAttention(4)
    layer(*random_inputs(width=64))
    limit = (6 / (16 + 16)) ** 0.5
    for kernel in layer.get_weights()[:3]:
        assert kernel.shape == (4, 16, 16)
        assert 0.95 * limit < np.abs(kernel).max() <= limit


def test_parameters_are_those_of_the_equations():
    layer = MultiHeadInteractionAttention(2)
    layer(*random_inputs(width=16, users=5, items=3))
    assert layer.count_params() == 3 * 2 * 8 * 8 + 16 * 16 + (5 + 3 + 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"num_heads": 3}, "num_heads must divide the width: got num_heads=3 for width 4"),
        ({"num_heads": 1, "scale": "sqrt"}, "scale must be 'max_length' or 'head', got 'sqrt'"),
        ({"num_heads": 1, "max_length": 0}, "max_length must be at least 1 or None, got 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadInteractionAttention(**options)(*random_inputs())


def test_an_unknown_length_needs_max_length_or_the_scale_of_heads():
    spec = tf.TensorSpec([None, None, 4])
    user, items, behaviours, lengths = random_inputs()

    def traced(**options):
        layer = MultiHeadInteractionAttention(2, **options)
        call = tf.function(lambda b: layer(user, items, b, lengths), input_signature=[spec])
        return call(behaviours)

    with pytest.raises(ValueError, match="Pass max_length, or use scale='head'"):
        traced()
    assert traced(max_length=5).shape == traced(scale="head").shape == (2, 3, 4)
