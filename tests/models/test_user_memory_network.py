import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_samples, small_schema
from tfrec_feedback.layers import FeatureEmbedding, FeatureEncoder
from tfrec_feedback.models.user_memory_network import (
    UserMemoryNetwork,
    _keys,
    add_sums,
    opposites,
    sampled_items,
)


@pytest.mark.parametrize(
    ("histories", "expected"),
    [
        (
            ["click", "unclick", "like", "dislike"],
            {"click": "unclick", "unclick": "click", "like": "dislike", "dislike": "like"},
        ),
        (
            ["click", "unclick", "dislike"],
            {"click": "unclick", "unclick": "click", "dislike": "click"},
        ),
        (["unclick", "like"], {"unclick": None, "like": "unclick"}),
        (["all"], {"all": None}),
    ],
)
def test_opposites_are_as_printed_where_they_are_read(histories, expected):
    assert opposites(histories) == expected


def test_different_items_have_different_keys_and_equal_ones_equal_keys():
    """Multiples of one number gave 40,000 items 5,000 keys: 6 rows up here, 2 down there."""
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 2000, (40_000, 2)), axis=0)
    keys = _keys(tf.constant(rows, tf.int32)).numpy()
    assert len(np.unique(keys)) == len(rows)
    assert keys.min() >= 0
    np.testing.assert_array_equal(keys[:5], _keys(tf.constant(rows[:5], tf.int32)))


def test_sampled_items_are_the_valid_ones_with_their_requests():
    schema = small_schema()
    encoded = FeatureEncoder(schema)({**random_batch(schema, 5), **random_samples(schema, 5)})
    embedding = FeatureEmbedding(schema, 3, histories=[], samples=["click"])
    fields = embedding(encoded)
    items = sampled_items(schema, fields.samples, encoded)["click"]
    lengths = encoded["click_sample_length"].numpy()
    np.testing.assert_array_equal(items.requests, np.repeat(np.arange(5), lengths))
    assert items.vectors.shape == (lengths.sum(), 2 * 3)
    request = int(np.argmax(lengths > 0))
    first = int(lengths[:request].sum())
    fields_of_first = tf.reshape(fields.samples["click"][request, 0], [-1])
    np.testing.assert_array_equal(items.vectors[first], fields_of_first)
    same = tf.gather(encoded["click_sample_rows"][request], [0, 0])
    assert len(np.unique(_keys(same))) == 1


def test_what_pads_a_multi_valued_field_does_not_change_the_item():
    schema = small_schema()
    raw = {**random_batch(schema, 1), **random_samples(schema, 1)}
    raw["click_sample_item_id"] = tf.constant([[105, 105]], tf.int64)
    raw["click_sample_length"] = tf.constant([2], tf.int64)
    raw["click_sample_tag"] = tf.constant([[["art", "music", ""], ["art", "sport", "art"]]])
    raw["click_sample_tag_count"] = tf.constant([[1, 1]], tf.int64)
    encoded = FeatureEncoder(schema)(raw)
    fields = FeatureEmbedding(schema, 3, histories=[], samples=["click"])(encoded)
    first, second = sampled_items(schema, fields.samples, encoded)["click"].keys.numpy()
    assert first == second


def test_samples_as_wide_as_a_word_need_no_projection():
    pair = {"click": "unclick", "unclick": "click"}
    assert UserMemoryNetwork(pair, 4, word_size=4).trainable_weights == []
    projected = UserMemoryNetwork(pair, 6, word_size=4).trainable_weights
    assert [w.shape for w in projected] == [(6, 4)]
    without = UserMemoryNetwork(pair, 6, word_size=4, triplet_weight=0.0)
    assert without.sampled == []
    assert without.trainable_weights == []


def test_sums_of_two_parts_are_added_memory_by_memory():
    one = {"click_memory": (tf.ones([2, 3]), tf.constant(1.0))}
    total = add_sums(one, one)
    np.testing.assert_array_equal(total["click_memory"][0], 2 * np.ones([2, 3]))
    assert float(total["click_memory"][1]) == 2.0


def test_its_configuration_builds_it_again():
    network = UserMemoryNetwork({"all": None}, None, memory_size=4, shared=True, max_norm=2.0)
    assert UserMemoryNetwork.from_config(network.get_config()).get_config() == network.get_config()
