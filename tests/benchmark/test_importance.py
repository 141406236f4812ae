import csv

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import random_batch, random_labels, small_schema
from tfrec_feedback.benchmark.importance import (
    feature_groups,
    permutation_importance,
    permuted,
    write_importance,
)
from tfrec_feedback.data.records import USER_KEY
from tfrec_feedback.models import build_model

SCHEMA = small_schema()


def by_name(groups):
    return {group.name: group for group in groups}


class DurationModel:
    """Clicks what is long: reads one candidate feature and nothing else."""

    schema = SCHEMA

    def __call__(self, features, training=False):
        return {"ctr": features["duration"], "dislike": -features["duration"]}


def batch_where_long_is_clicked(num_requests=40, seed=0):
    features = random_batch(SCHEMA, num_requests, seed)
    shape = features["duration"].shape
    duration = np.random.default_rng(seed).permutation(shape[0] * shape[1]).reshape(shape)
    features["duration"] = tf.constant(duration, tf.float32)
    clicks = tf.cast(features["duration"] >= shape[0] * shape[1] / 2, tf.float32)
    identity = {USER_KEY: tf.constant([f"u{i % 5}" for i in range(num_requests)])}
    labels = {"ctr": clicks, "dislike": 1.0 - clicks}
    return tf.data.Dataset.from_tensors((features, labels, tf.ones(shape), identity))


def test_every_input_belongs_to_one_group():
    tensors = [name for group in feature_groups(SCHEMA) for name in group.tensors]
    expected = {spec.name for spec in SCHEMA.inputs()} - {"num_candidates"}
    assert len(tensors) == len(set(tensors))
    assert set(tensors) == expected
    groups = by_name(feature_groups(SCHEMA))
    assert groups["interests"].tensors == ("interests", "interests_count")
    assert "click_length" in groups["click"].tensors
    assert "click_item_id" not in groups["item_id"].tensors


@given(st.integers(1, 6), st.integers(0, 100), st.sampled_from(feature_groups(SCHEMA)))
def test_shuffling_keeps_what_belongs_together(num_requests, seed, group):
    features = random_batch(SCHEMA, num_requests, seed)
    found = permuted(features, group, np.random.default_rng(seed))
    for name, before in features.items():
        if name not in group.tensors:
            np.testing.assert_array_equal(found[name].numpy(), before.numpy())
    assert rows(found, group) == rows(features, group)
    if group.kind == "candidate":
        padded = ~tf.sequence_mask(features["num_candidates"]).numpy()
        for name in group.tensors:
            after = found[name].numpy()[padded]
            np.testing.assert_array_equal(after, features[name].numpy()[padded])


def rows(features, group):
    """What the tensors of a group hold side by side, request by request, in sorted order."""
    if group.kind == "candidate":
        valid = tf.sequence_mask(features["num_candidates"]).numpy()
        parts = [features[name].numpy()[valid] for name in group.tensors]
    else:
        parts = [features[name].numpy() for name in group.tensors]
    return sorted(
        repr([np.asarray(part[i]).tolist() for part in parts]) for i in range(len(parts[0]))
    )


def test_the_one_input_that_is_read_is_the_one_that_matters():
    found = permutation_importance(DurationModel(), batch_where_long_is_clicked(), repeats=4)
    assert [entry.group for entry in found[::2]] == [g.name for g in feature_groups(SCHEMA)]
    for entry in found:
        if entry.group == "duration":
            # From a perfect ranking, AUC 1, to one that knows nothing, AUC 0.5.
            assert entry.auc == pytest.approx(0.5, abs=0.15)
            assert entry.gauc == pytest.approx(0.5, abs=0.15)
            assert entry.auc_deviation > 0
        else:
            assert (entry.auc, entry.gauc, entry.auc_deviation) == (0.0, 0.0, 0.0)


def test_histories_that_a_model_cannot_see_matter_exactly_nothing():
    model = build_model("dfn_no_feedback", SCHEMA, embedding_dim=4, deep_units=[4])
    # Fresh embeddings are so small that no input would matter.
    model.embedding.embeddings.assign(model.embedding.embeddings * 100.0)
    batch = batch_where_long_is_clicked()
    found = permutation_importance(model, batch, repeats=2, seed=3)
    drops = {(entry.kind, entry.group, entry.task): entry for entry in found}
    for history in SCHEMA.histories:
        for task in ("ctr", "dislike"):
            entry = drops["history", history.name, task]
            assert (entry.auc, entry.gauc, entry.auc_deviation) == (0.0, 0.0, 0.0)
    assert drops["candidate", "duration", "ctr"].auc != 0.0
    assert permutation_importance(model, batch, repeats=2, seed=3) == found


def test_encoded_requests_are_an_error():
    model = build_model("dfn_no_feedback", SCHEMA, embedding_dim=4, deep_units=[4])
    features = random_batch(SCHEMA)
    labels = random_labels(features)
    dataset = tf.data.Dataset.from_tensors((model.encode(features), labels))
    with pytest.raises(ValueError, match="needs raw requests"):
        permutation_importance(model, dataset)


def test_importance_is_written_as_a_line_an_entry(tmp_path):
    found = permutation_importance(DurationModel(), batch_where_long_is_clicked(), repeats=1)
    write_importance(found, tmp_path / "importance.csv")
    with open(tmp_path / "importance.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found)
    assert lines[0]["group"] == "hour"
    assert float(lines[0]["auc"]) == 0.0
