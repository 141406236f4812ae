import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, small_schema, tensors
from tfrec_feedback.layers import FeatureEncoder
from tfrec_feedback.layers.feature_encoding import table_offsets
from tfrec_feedback.schema import UNKNOWN_ROW

SCHEMA = small_schema(max_length=3)
OFFSET = table_offsets(SCHEMA)
REQUEST = {
    "context": {"hour": 23, "user_id": "ann", "interests": ["music"]},
    "histories": {
        "click": {"item_id": [100, 101, 102, 999], "tag": [["art"], [], ["art", "sport"], []]}
    },
    "candidates": {"item_id": [119, 5], "tag": [["sport"], ["?"]], "duration": [10.0, 9.0]},
}


def encoded(request=None, **changes):
    batch = tensors(SCHEMA, [request or REQUEST])
    return FeatureEncoder(SCHEMA)({**batch, **changes})


def test_known_values_take_their_row_and_unknown_ones_the_unknown_row():
    rows = encoded()["candidate_rows"].numpy()[0]
    item, tag, duration = OFFSET["item_id"], OFFSET["tag"], OFFSET["duration"]
    # Values begin at row 2: items are numbered from 100, "sport" is the fourth tag.
    assert rows[0, [0, 1, 4]].tolist() == [item + 2 + 19, tag + 2 + 3, duration + 2 + 1]
    assert rows[1, 0] == item + UNKNOWN_ROW
    assert rows[1, 1] == tag + UNKNOWN_ROW
    assert rows[1, 4] == duration + 2


@pytest.mark.parametrize(("hour", "row"), [(0, 2), (23, 25), (24, UNKNOWN_ROW), (-1, UNKNOWN_ROW)])
def test_identity_values_outside_the_range_are_unknown(hour, row):
    request = {**REQUEST, "context": {**REQUEST["context"], "hour": hour}}
    assert encoded(request)["context_rows"][0, 0] == OFFSET["hour"] + row


def test_multi_valued_features_weigh_their_values_equally():
    weights = encoded()["click_weights"].numpy()[0]
    # The most recent three events; slots: item_id, then three of tag.
    np.testing.assert_allclose(weights, [[1, 0, 0, 0], [1, 0.5, 0.5, 0], [1, 0, 0, 0]])


def test_long_histories_keep_their_most_recent_events():
    batch = tensors(small_schema(max_length=9), [REQUEST])
    result = FeatureEncoder(SCHEMA)(batch)
    assert result["click_length"].numpy().tolist() == [3]
    rows = result["click_rows"][0, :, 0].numpy() - OFFSET["item_id"]
    assert rows.tolist() == [2 + 1, 2 + 2, UNKNOWN_ROW]


def test_padding_with_the_first_element_changes_nothing():
    batch = random_batch(SCHEMA, 3, longest=3)
    repeated = {
        name: tf.concat([x, tf.repeat(x[:, :1], 4, axis=1)], axis=1) if x.shape.rank > 1 else x
        for name, x in batch.items()
    }
    plain, padded = FeatureEncoder(SCHEMA)(batch), FeatureEncoder(SCHEMA)(repeated)
    for name, value in plain.items():
        trimmed = padded[name][:, : value.shape[1]] if value.shape.rank > 1 else padded[name]
        np.testing.assert_array_equal(trimmed, value, err_msg=name)


@pytest.mark.parametrize(("length", "kept"), [(-5, 0), (1000, 3)])
def test_hostile_lengths_and_counts_are_clamped(length, kept):
    hostile = {"click_length": tf.constant([length], tf.int64)}
    hostile["click_tag_count"] = tf.fill([1, 3], tf.constant(length, tf.int64))
    result = encoded(**hostile)
    assert result["click_length"].numpy().tolist() == [kept]
    assert np.isfinite(result["click_weights"]).all()


def test_missing_tensors_are_named():
    batch = tensors(SCHEMA, [REQUEST])
    del batch["click_length"]
    with pytest.raises(ValueError, match=r"missing \['click_length'\]"):
        FeatureEncoder(SCHEMA)(batch)


def test_works_inside_tf_data_and_after_a_config_round_trip():
    batch = random_batch(SCHEMA)
    expected = FeatureEncoder(SCHEMA)(batch)
    twin = FeatureEncoder.from_config(FeatureEncoder(SCHEMA).get_config())
    mapped = next(iter(tf.data.Dataset.from_tensors(batch).map(twin)))
    for name, value in expected.items():
        np.testing.assert_array_equal(mapped[name], value, err_msg=name)


def test_vocabulary_files_and_inline_tokens_encode_alike(tmp_path):
    from tfrec_feedback.schema import Feature, Schema, Vocabulary

    (tmp_path / "items.txt").write_text("10\n7\n")
    request = [{"candidates": {"item_id": [7, 8, 10]}}]
    rows = []
    for encoding in (
        Vocabulary(dtype="int64", file="items.txt", size=2),
        Vocabulary(dtype="int64", tokens=(10, 7)),
    ):
        schema = Schema((), (Feature("item_id", encoding),), directory=tmp_path)
        rows.append(FeatureEncoder(schema)(tensors(schema, request))["candidate_rows"].numpy())
    np.testing.assert_array_equal(rows[0], rows[1])
    assert rows[0][0, :, 0].tolist() == [3, UNKNOWN_ROW, 2]
