import numpy as np
import tensorflow as tf

from tests.examples import random_batch, random_samples, small_schema, tensors
from tests.layers.conformance import check_layer
from tfrec_feedback.layers import FeatureEmbedding, FeatureEncoder, WideWeights

SCHEMA = small_schema()
REQUEST = {
    "context": {"hour": 1, "user_id": "ann", "interests": []},
    "candidates": {"item_id": [100], "tag": [["art", "music"]], "duration": [1.0]},
}


def test_multi_valued_fields_are_the_mean_of_their_values():
    layer = FeatureEmbedding(SCHEMA, 3)
    fields = layer(FeatureEncoder(SCHEMA)(tensors(SCHEMA, [REQUEST])))
    tags = layer.table("tag").numpy()
    np.testing.assert_allclose(fields.candidates[0, 0, 1], (tags[2] + tags[4]) / 2, rtol=1e-6)
    np.testing.assert_allclose(fields.candidates[0, 0, 0], layer.table("item_id")[2])
    np.testing.assert_array_equal(fields.context[0, 2], np.zeros(3))
    assert fields.context.shape == (1, 3, 3)
    assert fields.candidates.shape == (1, 1, 3, 3)


def test_padded_positions_are_zero_and_never_trained():
    layer = FeatureEmbedding(SCHEMA, 3)
    encoded = FeatureEncoder(SCHEMA)(random_batch(SCHEMA, 3))
    with tf.GradientTape() as tape:
        fields = layer(encoded)
        parts = [fields.context, fields.candidates]
        parts += [history.flat_values for history in fields.histories.values()]
        total = sum(tf.reduce_sum(x) for x in parts)
    gradient = tape.gradient(total, layer.embeddings)
    dense = tf.math.unsorted_segment_sum(
        gradient.values, gradient.indices, layer.embeddings.shape[0]
    )
    np.testing.assert_array_equal(dense[0], np.zeros(3))
    for history in SCHEMA.histories:
        lengths = fields.histories[history.name].row_lengths()
        np.testing.assert_array_equal(lengths, encoded[history.length])
    padded = (
        np.arange(encoded["candidate_rows"].shape[1])[None]
        >= encoded["num_candidates"].numpy()[:, None]
    )
    assert padded.any()
    assert not fields.candidates.numpy()[padded].any()


def test_histories_share_the_candidates_table():
    layer = FeatureEmbedding(SCHEMA, 3)
    request = {**REQUEST, "histories": {"like": {"item_id": [100], "tag": [["art", "music"]]}}}
    fields = layer(FeatureEncoder(SCHEMA)(tensors(SCHEMA, [request])))
    np.testing.assert_array_equal(fields.histories["like"][0, 0], fields.candidates[0, 0, :2])


def test_conformance():
    encoded = FeatureEncoder(SCHEMA)(random_batch(SCHEMA, 3))
    check_layer(FeatureEmbedding(SCHEMA, 3, histories=["click"]), encoded)
    check_layer(WideWeights(SCHEMA), encoded)
    check_layer(WideWeights(SCHEMA, use_bias=False, histories=["like", "click"]), encoded)


def test_dropout_acts_in_training_only():
    layer = FeatureEmbedding(SCHEMA, 3, context_dropout=0.5)
    encoded = FeatureEncoder(SCHEMA)(random_batch(SCHEMA, 30))
    np.testing.assert_array_equal(layer(encoded).context, layer(encoded, training=False).context)
    dropped = layer(encoded, training=True).context.numpy()
    kept = layer(encoded).context.numpy()
    assert set(np.unique(np.round(dropped[kept != 0] / kept[kept != 0], 4))) == {0.0, 2.0}


def test_wide_weights_are_scalars_of_the_field_not_of_the_shared_table():
    layer = WideWeights(SCHEMA)
    request = {**REQUEST, "context": {**REQUEST["context"], "interests": ["art"]}}
    encoded = FeatureEncoder(SCHEMA)(tensors(SCHEMA, [request]))
    layer(encoded)
    weights = np.zeros(layer.weights_of_values.shape, np.float32)
    # Fields in order: hour 26 rows, user_id 52, interests 6, item_id 22, tag 6, duration 5.
    weights[26 + 52 + 2] = 0.25  # interests = art
    weights[26 + 52 + 6 + 22 + 2] = 3.0  # tag = art
    weights[26 + 52 + 6 + 22 + 4] = 5.0  # tag = music
    layer.weights_of_values.assign(weights)
    layer.bias.assign([0, 0, 1, 0, 2, 0])
    context, candidates = layer(encoded)
    np.testing.assert_allclose(context, [[0.0, 0.0, 1.25]])
    np.testing.assert_allclose(candidates, [[[0.0, 2.0 + 4.0, 0.0]]])


def test_histories_are_wide_fields_with_the_mean_scalar_of_their_events():
    layer = WideWeights(SCHEMA, histories=["like", "click"])
    likes = {"item_id": [100, 101, 101], "tag": [["art", "music"], [], ["music"]]}
    requests = [{**REQUEST, "histories": {"like": likes}}, REQUEST]
    encoded = FeatureEncoder(SCHEMA)(tensors(SCHEMA, requests))
    layer(encoded)
    weights = np.zeros(layer.weights_of_values.shape, np.float32)
    # After the 117 rows of context and candidate: like's item_id 22, tag 6, then click's.
    assert len(weights) == 117 + 2 * (22 + 6)
    weights[[117 + 2, 117 + 3]] = [[1.0], [4.0]]  # items 100 and 101
    weights[[117 + 22 + 2, 117 + 22 + 4]] = [[2.0], [10.0]]  # art and music
    layer.weights_of_values.assign(weights)
    layer.bias.assign(np.full(6, 7.0))  # histories have no bias
    context, candidates = layer(encoded)
    # The three items have 1, 4 and 4; their tags 6, the mean of 2 and 10, then none, then 10.
    np.testing.assert_allclose(context[0], [7.0, 7.0, 7.0, 3.0, 16.0 / 3.0, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(context[1], [7.0, 7.0, 7.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(candidates, np.full([2, 1, 3], 7.0))


def test_samples_are_looked_up_where_the_batch_has_them():
    layer = FeatureEmbedding(SCHEMA, 3, histories=["click"], samples=["click", "like"])
    requests = random_batch(SCHEMA, 4)
    assert layer(FeatureEncoder(SCHEMA)(requests)).samples == {}
    encoded = FeatureEncoder(SCHEMA)({**requests, **random_samples(SCHEMA, 4)})
    fields = layer(encoded)
    assert sorted(fields.histories) == ["click"]
    assert sorted(fields.samples) == ["click", "like"]
    np.testing.assert_array_equal(
        fields.samples["like"].row_lengths(), encoded["like_sample_length"]
    )
    first = encoded["like_sample_rows"][encoded["like_sample_length"] > 0][0, 0, 0]
    np.testing.assert_array_equal(fields.samples["like"].flat_values[0, 0], layer.embeddings[first])
