import numpy as np
import tensorflow as tf

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import BehaviourEmbedding


def test_projects_item_fields_beside_the_age_rank():
    layer = BehaviourEmbedding(units=4, max_length=3)
    fields = tf.random.normal([1, 3, 2, 5])
    result = layer({"click": fields}, {"click": tf.constant([2])})["click"].numpy()
    ages, kernel = layer.age_ranks.numpy(), layer.kernels["click"].numpy()
    for position, rank in ((0, 2), (1, 1)):  # the last valid event is the most recent: rank 1
        row = np.concatenate([fields[0, position].numpy().reshape(-1), ages[rank]])
        np.testing.assert_allclose(result[0, position], row @ kernel, atol=1e-5)
    np.testing.assert_array_equal(result[0, 2], np.zeros(4))


def test_padding_on_the_right_does_not_change_ages():
    layer = BehaviourEmbedding(units=4, max_length=3)
    fields, lengths = tf.random.normal([2, 3, 2, 5]), {"click": tf.constant([2, 0])}
    wide = tf.concat([fields, tf.ones([2, 4, 2, 5])], axis=1)
    short = layer({"click": fields}, lengths)["click"]
    np.testing.assert_allclose(layer({"click": wide}, lengths)["click"][:, :3], short, atol=1e-6)


def test_conformance_with_histories_of_different_fields():
    fields = {"click": tf.ones([2, 3, 2, 5]), "dislike": tf.ones([2, 1, 1, 5])}
    lengths = {"click": tf.constant([3, 1]), "dislike": tf.constant([0, 0])}
    result = check_layer(BehaviourEmbedding(units=4, max_length=3), fields, lengths)
    np.testing.assert_array_equal(result["dislike"], np.zeros([2, 1, 4]))
