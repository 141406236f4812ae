import numpy as np

from tests.examples import random_batch, small_schema, tensors
from tests.layers.conformance import check_layer
from tfrec_feedback.layers import FeatureEncoder, LinearTerm

SCHEMA = small_schema()
# Rows of each field: hour 26, user_id 52, interests 6, item_id 22, tag 6, duration 5; then those
# of the histories' own fields. Row 2 is the first known value.
HOUR, ITEM, TAG = 0, 26 + 52 + 6, 26 + 52 + 6 + 22
HISTORIES = TAG + 6 + 5
LIKE_ITEM, LIKE_TAG = HISTORIES, HISTORIES + 22
REQUEST = {
    "context": {"hour": 3, "user_id": "ann", "interests": []},
    "histories": {"like": {"item_id": [100, 101], "tag": [["art"], []]}},
    "candidates": {"item_id": [100, 101], "tag": [["art", "cooking"], []], "duration": [1.0, 1.0]},
}


def by_hand(histories):
    layer = LinearTerm(SCHEMA, histories)
    layer(FeatureEncoder(SCHEMA)(random_batch(SCHEMA, 1)))
    weights = np.zeros(layer.scalars.weights_of_values.shape, np.float32)
    weights[HOUR + 2 + 3] = 1000.0
    weights[[ITEM + 2, ITEM + 3]] = [[100.0], [200.0]]
    weights[[TAG + 2, TAG + 3]] = [[10.0], [30.0]]
    if "like" in histories:
        weights[[LIKE_ITEM + 2, LIKE_ITEM + 3]] = [[1.0], [3.0]]
        weights[LIKE_TAG + 2] = 0.5
    layer.scalars.weights_of_values.assign(weights)
    layer.bias.assign(10000.0)
    return layer


def test_bias_and_one_scalar_a_field_by_hand():
    found = by_hand([])(FeatureEncoder(SCHEMA)(tensors(SCHEMA, [REQUEST])))
    # The first item has two tags: the mean of 10 and 30. The second has none.
    np.testing.assert_allclose(found, [[11000.0 + 100.0 + 20.0, 11000.0 + 200.0]])


def test_a_history_is_one_field_a_feature_with_the_mean_over_its_events():
    found = by_hand(["like"])(FeatureEncoder(SCHEMA)(tensors(SCHEMA, [REQUEST])))
    # The two items have 1 and 3, a mean of 2; their tags 0.5 and none, a mean of 0.25.
    np.testing.assert_allclose(found, [[11122.25, 11202.25]])


def test_empty_histories_and_padded_events_count_nothing():
    """Beside a request with two likes, one without any is padded with two."""
    empty = {**REQUEST, "histories": {}}
    found = by_hand(["like"])(FeatureEncoder(SCHEMA)(tensors(SCHEMA, [REQUEST, empty])))
    np.testing.assert_allclose(found, [[11122.25, 11202.25], [11120.0, 11200.0]])


def test_it_starts_at_zero_and_survives_its_config():
    layer = LinearTerm(SCHEMA, ["click", "dislike"])
    encoded = FeatureEncoder(SCHEMA)(random_batch(SCHEMA, 3))
    found = check_layer(layer, encoded)
    np.testing.assert_array_equal(found, np.zeros(encoded["candidate_rows"].shape[:2]))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    assert np.std(check_layer(layer, encoded)) > 0.1
