import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import assert_close, check_layer
from tfrec_feedback.layers.interest_transformer import InterestTransformer


def ragged(rows, lengths):
    return tf.RaggedTensor.from_row_lengths(tf.constant(rows, tf.float32), lengths)


def example(seed=0, lengths=(3, 0, 5), candidates=2, width=4, num_heads=2, max_length=4):
    """A layer with random weights, candidates `[R, N, D]` and events `[sum(n), D]`."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(len(lengths), candidates, width)).astype(np.float32)
    events = rng.normal(size=(sum(lengths), width)).astype(np.float32)
    layer = InterestTransformer(num_heads, max_length)
    layer((target, ragged(events, lengths)))
    layer.set_weights([rng.normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return layer, target, events


def normalise(x, gamma, beta):
    return gamma * (x - x.mean()) / np.sqrt(x.var() + 1e-6) + beta


def block(row, memory, kernels, num_heads):
    """One row of a transformer block over the rows of its memory, head by head."""
    queries, keys, values, joiner, wide, wide_bias, narrow, narrow_bias, *norms = kernels
    size = len(row) // num_heads
    heads = np.zeros(len(row))
    for h in range(num_heads):
        columns = slice(h * size, (h + 1) * size)
        if not memory:
            continue
        logits = [row @ queries[:, columns] @ (m @ keys[:, columns]) / size**0.5 for m in memory]
        weights = np.exp(logits - np.max(logits))
        weights /= weights.sum()
        for weight, m in zip(weights, memory, strict=True):
            heads[columns] += weight * (m @ values[:, columns])
    row = normalise(row + heads @ joiner, *norms[:2])
    hidden = np.maximum(row @ wide + wide_bias, 0.0)
    return normalise(row + hidden @ narrow + narrow_bias, *norms[2:])


def weights_of(part):
    layers = [part._hidden, part._narrow, *part._norms]
    kernels = [part.query_kernel, part.key_kernel, part.value_kernel, part.output_kernel]
    return [np.asarray(w, np.float64) for w in kernels + sum((x.weights for x in layers), [])]


def referee(layer, target, events, lengths):
    encoder, decoder = weights_of(layer._encoder), weights_of(layer._decoder)
    positions, scale = layer.positions.numpy().astype(np.float64), target.shape[-1] ** 0.5
    result, start = np.zeros(target.shape), 0
    for r, length in enumerate(lengths):
        ages = [min(length - 1 - j, layer.max_length - 1) for j in range(length)]
        rows = [events[start + j] * scale + positions[age] for j, age in enumerate(ages)]
        memory = [block(row, rows, encoder, layer.num_heads) for row in rows]
        for n in range(target.shape[1]):
            result[r, n] = block(target[r, n] * scale, memory, decoder, layer.num_heads)
        start += length
    return result


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    candidates=st.integers(1, 3),
    num_heads=st.sampled_from([1, 2, 4]),
)
def test_equals_a_loop_over_requests_candidates_and_heads(seed, lengths, candidates, num_heads):
    layer, target, events = example(seed, lengths, candidates, num_heads=num_heads)
    expected = referee(layer, target, events, lengths)
    np.testing.assert_allclose(layer((target, ragged(events, lengths))), expected, atol=2e-4)


def test_without_events_the_interest_is_the_targets_residual_path():
    layer = InterestTransformer(num_heads=1, max_length=3)
    inputs = (tf.constant([[[1.0, 3.0], [7.0, 2.0]]]), ragged(np.zeros((0, 2)), [0]))
    layer(inputs)
    silent = [layer._decoder._narrow.kernel, layer._decoder._narrow.bias]
    for variable in silent:
        variable.assign(tf.zeros_like(variable))
    # Normalised, a pair (a, b) is (-1, 1) where a < b and (1, -1) where a > b.
    np.testing.assert_allclose(layer(inputs), [[[-1.0, 1.0], [1.0, -1.0]]], atol=1e-5)
    # With a second scale of 3 and shift of 1: (-3 + 1, 3 + 1).
    layer._decoder._norms[1].set_weights([np.array([3.0, 3.0]), np.array([1.0, 1.0])])
    np.testing.assert_allclose(layer(inputs), [[[-2.0, 4.0], [4.0, -2.0]]], atol=1e-5)


def test_without_events_no_attention_weight_has_a_say():
    layer, target, _ = example(lengths=(0, 0))
    nothing = ragged(np.zeros((0, 4)), [0, 0])
    before = layer((target, nothing))
    layer._decoder.value_kernel.assign(layer._decoder.value_kernel * 100.0)
    layer._decoder.output_kernel.assign(layer._decoder.output_kernel * 100.0)
    assert_close(layer((target, nothing)), before, 0.0)


def test_a_request_is_read_alone_as_beside_longer_and_empty_ones():
    layer, target, events = example(lengths=(3, 0, 5))
    together = layer((target, ragged(events, [3, 0, 5])))
    for r, rows in enumerate((events[:3], events[:0], events[3:])):
        alone = layer((target[r : r + 1], ragged(rows, [len(rows)])))
        assert_close(alone, together[r : r + 1], 1e-5)


def test_equal_candidates_get_the_interest_of_one_alone():
    layer, target, events = example(lengths=(3,), candidates=1)
    alone = layer((target, ragged(events, [3])))
    many = layer((np.repeat(target, 5, axis=1), ragged(events, [3])))
    assert_close(many, np.repeat(alone, 5, axis=1), 1e-5)


def test_the_order_of_events_matters_through_positions_alone():
    layer, target, events = example(lengths=(3,))
    forward, backward = ragged(events, [3]), ragged(events[::-1], [3])
    assert np.abs(layer((target, forward)) - layer((target, backward))).max() > 1e-2
    layer.positions.assign(tf.zeros_like(layer.positions))
    assert_close(layer((target, forward)), layer((target, backward)), 1e-5)


def test_positions_count_from_the_most_recent_event():
    layer, target, events = example(lengths=(2,), max_length=4)
    inputs = (target, ragged(events, [2]))
    before = layer(inputs)
    moved = layer.positions.numpy()
    moved[2:] += 5.0  # two events have the ages 0 and 1
    layer.positions.assign(moved)
    assert_close(layer(inputs), before, 0.0)
    moved[0] += [1.0, 0.0, 0.0, 0.0]
    layer.positions.assign(moved)
    assert np.abs(layer(inputs) - before).max() > 1e-3


def test_events_older_than_all_positions_share_the_last_one():
    layer, target, events = example(lengths=(4,), max_length=2)
    swapped = events[[1, 0, 2, 3]]  # ages 3 and 2, both beyond position 1
    results = [layer((target, ragged(rows, [4]))) for rows in (events, swapped)]
    assert_close(results[1], results[0], 1e-5)


def test_parameters_counted_by_hand():
    layer, _, _ = example(width=4, max_length=3)
    positions = 3 * 4
    one_block = 4 * 4 * 4 + (4 * 16 + 16) + (16 * 4 + 4) + 2 * (4 + 4)
    assert layer.count_params() == positions + 2 * one_block == 468


def test_gradients_are_finite_where_all_histories_are_empty():
    layer, _, _ = example()
    nothing = ragged(np.zeros((0, 4)), [0, 0])
    target = tf.zeros([2, 3, 4])  # as of padded candidates
    for function in (layer, tf.function(layer)):
        with tf.GradientTape() as tape:
            tape.watch(target)
            loss = tf.reduce_sum(function((target, nothing)) ** 2)
        for gradient in tape.gradient(loss, [target, *layer.trainable_variables]):
            assert np.isfinite(tf.convert_to_tensor(gradient)).all()


@pytest.mark.parametrize("lengths", [(3, 0, 5), (1,)])
def test_conformance(lengths):
    layer, target, events = example(lengths=lengths, candidates=1)
    assert check_layer(layer, (target, ragged(events, lengths))).shape == (len(lengths), 1, 4)


def test_heads_must_divide_the_width():
    layer = InterestTransformer(num_heads=3)
    with pytest.raises(ValueError, match="got num_heads=3 for width 4"):
        layer((tf.zeros([1, 1, 4]), ragged(np.zeros((1, 4)), [1])))


@pytest.mark.parametrize("argument", ["num_heads", "max_length", "ffn_multiplier"])
def test_counts_below_one_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        InterestTransformer(**{argument: 0})
