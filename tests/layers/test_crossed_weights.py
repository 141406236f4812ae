import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, small_schema, tensors
from tests.layers.conformance import check_layer
from tfrec_feedback.layers import CrossedWeights, FeatureEncoder
from tfrec_feedback.schema import SchemaError

SCHEMA = small_schema()
BUCKETS = 1000


def encoded(context, candidates, schema=SCHEMA):
    request = {
        "context": {"hour": 1, "user_id": "ann", "interests": [], **context},
        "candidates": [{"item_id": 100, "tag": [], "duration": 1.0, **c} for c in candidates],
    }
    return FeatureEncoder(schema)(tensors(schema, [request]))


def numbered(crosses, num_buckets=BUCKETS, schema=SCHEMA):
    """A layer whose scalars are their own row numbers: what it returns names the rows."""
    layer = CrossedWeights(schema, crosses, num_buckets)
    layer(encoded({}, [{}], schema))
    rows = len(crosses) * num_buckets
    layer.set_weights([np.arange(rows, dtype=np.float32)[:, np.newaxis]])
    return layer


def one(layer, inputs):
    """The score of the one candidate of the one request."""
    return layer(inputs).numpy().item()


def test_equal_combinations_have_one_scalar_and_others_their_own():
    items = [{"item_id": 100}, {"item_id": 101}, {"item_id": 100}]
    layer = numbered([("user_id", "item_id")])
    ann, ben = (layer(encoded({"user_id": name}, items)).numpy()[0] for name in ("ann", "ben"))
    assert ann[0] == ann[2]
    assert ben[0] == ben[2]
    assert len({ann[0], ann[1], ben[0], ben[1]}) == 4
    np.testing.assert_array_equal(layer(encoded({"user_id": "ann"}, items)).numpy()[0], ann)


def test_every_cross_has_buckets_of_its_own():
    crosses = [("user_id", "item_id"), ("hour", "item_id")]
    first, second = numbered(crosses[:1]), numbered(crosses[1:])
    inputs = encoded({}, [{}])
    assert 0 <= one(first, inputs) < BUCKETS
    total = one(numbered(crosses), inputs)
    assert total == one(first, inputs) + BUCKETS + one(second, inputs)


def test_which_feature_is_named_first_belongs_to_a_cross():
    inputs = encoded({"interests": ["art"]}, [{"tag": ["music"]}])
    straight, swapped = numbered([("interests", "tag")]), numbered([("tag", "interests")])
    assert one(straight, inputs) != one(swapped, inputs)


def test_crosses_of_the_users_own_features_are_the_same_for_all_his_candidates():
    layer = numbered([("hour", "user_id")])
    scores = layer(encoded({"hour": 3}, [{"item_id": 100}, {"item_id": 101}])).numpy()[0]
    assert scores[0] == scores[1]
    assert scores[0] != layer(encoded({"hour": 4}, [{}])).numpy()[0, 0]


def test_crosses_of_two_item_features_are_the_same_for_all_users():
    layer = numbered([("item_id", "duration")])
    items = [{"duration": 1.0}, {"duration": 30.0}]
    ann, ben = (layer(encoded({"user_id": name}, items)).numpy() for name in ("ann", "ben"))
    np.testing.assert_array_equal(ann, ben)
    assert ann[0, 0] != ann[0, 1]


def test_multi_valued_features_have_the_mean_over_all_combinations():
    layer = numbered([("interests", "tag")])

    def score(interests, tags):
        return one(layer, encoded({"interests": interests}, [{"tag": tags}]))

    single = [score([a], [b]) for a in ("art", "music") for b in ("art", "cooking", "sport")]
    assert len(set(single)) == 6
    several = score(["art", "music"], ["art", "cooking", "sport"])
    assert several == pytest.approx(np.mean(single), rel=1e-6)


def test_a_feature_without_values_adds_nothing():
    layer = numbered([("interests", "tag"), ("user_id", "tag")])
    assert one(layer, encoded({"interests": ["art"]}, [{"tag": []}])) == 0.0
    assert one(layer, encoded({"interests": []}, [{"tag": []}])) == 0.0


def test_few_combinations_share_a_bucket():
    """Of 50 x 20 combinations in 10^5 buckets about 5 would, were the hash random."""
    layer = numbered([("user_id", "item_id")], 10**5)
    items = [{"item_id": 100 + i} for i in range(20)]
    rows = [layer(encoded({"user_id": f"{i}"}, items)).numpy()[0] for i in range(60)]
    users = np.unique(rows, axis=0)
    assert len(users) > 25  # some names share a hashed row
    assert len(np.unique(users)) > users.size - 15


def test_a_step_touches_the_rows_of_its_batch_alone():
    layer = numbered([("user_id", "item_id")])
    inputs = encoded({}, [{"item_id": 100}, {"item_id": 101}])
    bucket = layer(inputs).numpy()[0].astype(int)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs))
    gradient = tape.gradient(loss, layer.weights_of_crosses)
    assert isinstance(gradient, tf.IndexedSlices)
    assert set(gradient.indices.numpy()) == set(bucket)
    np.testing.assert_array_equal(gradient.values, np.ones([2, 1]))


def test_conformance():
    crosses = [("hour", "user_id"), ("user_id", "item_id"), ("tag", "interests"), ("tag", "tag")]
    layer = CrossedWeights(SCHEMA, crosses, 97)
    inputs = FeatureEncoder(SCHEMA)(random_batch(SCHEMA, 3))
    layer(inputs)
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    assert check_layer(layer, inputs).shape == inputs["candidate_rows"].shape[:2]


@pytest.mark.parametrize(
    ("crosses", "buckets", "message"),
    [
        ([("user_id", "item_id", "tag")], 10, "A cross is a pair of features"),
        ([("user_id", "item")], 10, "item"),
        ([("user_id", "item_id")], 0, "num_buckets must be positive, got 0"),
    ],
)
def test_wrong_crosses_are_refused(crosses, buckets, message):
    with pytest.raises((SchemaError, ValueError), match=message):
        CrossedWeights(SCHEMA, crosses, buckets)
