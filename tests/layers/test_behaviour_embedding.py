import numpy as np
import tensorflow as tf

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import BehaviourEmbedding


def events(lengths, fields=2):
    values = np.random.default_rng(0).normal(size=(sum(lengths), fields, 5))
    return tf.RaggedTensor.from_row_lengths(tf.constant(values, tf.float32), lengths)


def test_projects_item_fields_beside_the_age_rank():
    layer = BehaviourEmbedding(units=4, max_length=3)
    fields = events([0, 2, 1])
    result = layer({"click": fields})["click"].numpy()
    ages, kernel = layer.age_ranks.numpy(), layer.kernels["click"].numpy()
    # The last event of a request is the most recent one: rank 1.
    for request, position, event, rank in ((1, 0, 0, 2), (1, 1, 1, 1), (2, 0, 2, 1)):
        item = fields.flat_values[event].numpy().reshape(-1)
        expected = np.concatenate([item, ages[rank]]) @ kernel
        np.testing.assert_allclose(result[request, position], expected, atol=1e-5)
    np.testing.assert_array_equal(result[0], np.zeros([2, 4]))
    np.testing.assert_array_equal(result[2, 1], np.zeros(4))


def test_events_older_than_the_table_share_its_oldest_rank():
    layer = BehaviourEmbedding(units=4, max_length=2)
    same = tf.RaggedTensor.from_row_lengths(tf.ones([4, 2, 5]), [4])
    result = layer({"click": same})["click"].numpy()[0]
    np.testing.assert_allclose(result[0], result[2], atol=1e-6)
    assert np.abs(result[2] - result[3]).max() > 1e-6


def test_conformance_with_histories_of_different_fields():
    fields = {"click": events([3, 1]), "dislike": events([0, 0], fields=1)}
    result = check_layer(BehaviourEmbedding(units=4, max_length=3), fields)
    assert result["click"].shape == (2, 3, 4)
    assert not np.any(result["dislike"])
