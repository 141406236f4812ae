import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_samples, small_schema, tensors
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


def test_of_more_values_than_slots_the_first_ones_share_the_mean():
    batch = tensors(SCHEMA, [REQUEST])
    most = SCHEMA.feature("tag").max_values
    wide = {
        "tag": tf.repeat(batch["tag"][:, :, :1], most + 2, axis=-1),
        "tag_count": tf.constant([[most + 2, 2]], tf.int64),
    }
    weights = encoded(**wide)["candidate_weights"].numpy()[0, :, 1:4]
    np.testing.assert_allclose(weights, [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], rtol=1e-6)


def test_missing_tensors_are_named():
    batch = tensors(SCHEMA, [REQUEST])
    del batch["click_length"]
    with pytest.raises(ValueError, match=r"missing \['click_length'\]"):
        FeatureEncoder(SCHEMA)(batch)


def sampled(**changes):
    samples = {
        "click_sample_item_id": [[102, 999, 100, 100], [101, 100, 100, 100]],
        "click_sample_tag": [[["art", "sport", "?"]] * 4] * 2,
        "click_sample_tag_count": [[2, 0, 1, 1], [3, 1, 1, 1]],
        "click_sample_length": [2, 0],
    }
    samples = {
        name: tf.constant(value, tf.string if name.endswith("tag") else tf.int64)
        for name, value in (samples | changes).items()
    }
    return FeatureEncoder(SCHEMA)({**tensors(SCHEMA, [REQUEST] * 2), **samples})


def test_samples_are_encoded_like_a_history():
    # An item the vocabulary has, one it has not; nothing is left of the padding, and of the
    # second request, which drew nothing.
    result = sampled()
    assert result["click_sample_length"].numpy().tolist() == [2, 0]
    item, tag = OFFSET["item_id"], OFFSET["tag"]
    rows, weights = result["click_sample_rows"].numpy(), result["click_sample_weights"].numpy()
    assert rows[0, :2, 0].tolist() == [item + 2 + 2, item + UNKNOWN_ROW]
    assert rows[0, 0, 1:].tolist() == [tag + 2, tag + 2 + 3, tag + UNKNOWN_ROW]
    np.testing.assert_allclose(weights[0], [[1, 0.5, 0.5, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert not rows[0, 2:].any()
    assert not rows[1].any()
    assert not weights[1].any()


def test_hostile_lengths_of_samples_are_clamped():
    result = sampled(click_sample_length=[1000, -5])
    assert result["click_sample_length"].numpy().tolist() == [3, 0]
    assert result["click_sample_rows"].shape == [2, 3, 4]


def test_without_samples_nothing_of_them_is_encoded():
    # A server sends none; a batch may also hold those of some histories only.
    assert not [name for name in encoded() if "sample" in name]
    assert {name for name in sampled() if "sample" in name} == {
        "click_sample_rows",
        "click_sample_weights",
        "click_sample_length",
    }


def test_samples_that_are_incomplete_are_refused():
    batch = {**random_batch(SCHEMA), **random_samples(SCHEMA)}
    assert {"click_sample_rows", "dislike_sample_rows"} <= set(FeatureEncoder(SCHEMA)(batch))
    del batch["like_sample_tag_count"]
    with pytest.raises(ValueError, match=r"missing \['like_sample_tag_count'\]"):
        FeatureEncoder(SCHEMA)(batch)


def sessions_of(numbers, length, max_length=3):
    schema = small_schema(max_length=max_length, num_sessions=2)
    width = len(numbers)
    items = {"item_id": [100] * width, "tag": [[]] * width, "session": [0] * width}
    request = {**REQUEST, "histories": {"click": items}}
    batch = {
        **tensors(small_schema(max_length=width, num_sessions=2), [request]),
        "click_session": tf.constant([numbers], tf.int64),
        "click_length": tf.constant([length], tf.int64),
    }
    return FeatureEncoder(schema)(batch)["click_session"]


def test_session_numbers_are_cut_with_their_events_and_clipped():
    # The most recent three of five events; the oldest of them is of session 7, told apart no more.
    numbers = sessions_of([8, 8, 7, 1, 0], 5)
    assert numbers.dtype == tf.int32
    assert numbers.numpy().tolist() == [[2, 1, 0]]


def test_session_numbers_of_padding_are_of_no_session():
    assert sessions_of([1, 0, 0], 2).numpy().tolist() == [[1, 0, 2]]
    assert sessions_of([0, 0, 0], 0).numpy().tolist() == [[2, 2, 2]]


def test_hostile_session_numbers_are_clipped():
    assert sessions_of([2**40, -(2**40), 0], 3).numpy().tolist() == [[2, 0, 0]]


def test_missing_session_numbers_are_named():
    schema = small_schema(num_sessions=2)
    batch = random_batch(schema, 2)
    assert "click_session" in FeatureEncoder(schema)(batch)
    assert "click_session" not in FeatureEncoder(small_schema())(batch)
    del batch["click_session"]
    with pytest.raises(ValueError, match=r"missing \['click_session'\]"):
        FeatureEncoder(schema)(batch)


def test_works_inside_tf_data_and_after_a_config_round_trip():
    batch = {**random_batch(SCHEMA), **random_samples(SCHEMA)}
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
