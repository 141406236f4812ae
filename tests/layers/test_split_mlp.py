import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import Dice, SplitMLP


def random_inputs(seed, requests=2, candidates=3, context=2):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(requests, context)).astype(np.float32)
    return shared, rng.normal(size=(requests, candidates, 4)).astype(np.float32)


def joined(shared, each):
    repeated = np.repeat(shared[:, np.newaxis], each.shape[1], axis=1)
    return np.concatenate([repeated, each], axis=-1)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 999),
    context=st.integers(0, 3),
    units=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    activation=st.sampled_from(["relu", "tanh", "linear"]),
)
def test_equals_dense_layers_over_the_concatenation(seed, context, units, activation):
    inputs, layer = random_inputs(seed, context=context), SplitMLP(units, activation)
    found = layer(inputs)
    hidden = joined(*inputs)
    for part in (layer._first, *layer._deeper):
        dense = tf.keras.layers.Dense(part.units, activation)
        dense.build((None, hidden.shape[-1]))
        dense.set_weights(part.get_weights())
        hidden = dense(hidden).numpy()
    np.testing.assert_allclose(found, hidden, atol=1e-5)


def test_dice_takes_its_statistics_from_valid_candidates_of_every_layer():
    mask = tf.constant([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    shared, each = random_inputs(1)
    layer = SplitMLP((5, 3), "dice")
    found = layer((shared, each), mask=mask, training=True).numpy()
    valid = mask.numpy() > 0.0
    hidden = joined(shared, each)[valid]
    for part in (layer._first, *layer._deeper):
        s = hidden @ part.kernel.numpy() + part.bias.numpy()
        hidden = Dice()((tf.constant(s), None), training=True).numpy()
    np.testing.assert_allclose(found[valid], hidden, atol=1e-5)
    moved = layer((shared, each + 50.0 * ~valid[..., np.newaxis]), mask=mask, training=True)
    np.testing.assert_allclose(moved.numpy()[valid], hidden, atol=1e-5)


def test_dropout_acts_in_training_only():
    layer, inputs = SplitMLP((50,), "linear", dropout=0.5), random_inputs(0)
    kept = layer(inputs).numpy()
    np.testing.assert_array_equal(layer(inputs, training=False), kept)
    ratio = layer(inputs, training=True).numpy() / kept
    assert set(np.unique(np.round(ratio, 3))) == {0.0, 2.0}


@pytest.mark.parametrize("activation", ["relu", "dice"])
@pytest.mark.parametrize("context", [0, 2])
def test_conformance(activation, context):
    inputs = tuple(tf.constant(x) for x in random_inputs(0, context=context))
    assert check_layer(SplitMLP((4, 3), activation, 0.1), inputs).shape == (2, 3, 3)


def test_at_least_one_width_is_needed():
    for units in ((), (0,), (8, -1)):
        with pytest.raises(ValueError, match="units needs at least one width, none below 1"):
            SplitMLP(units)
