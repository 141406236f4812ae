"""The truth of a simulated log reaches training as a label, and goes nowhere else."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.data.logs import small_events, small_source
from tfrec_feedback.config import load_config
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.records import TRUTH
from tfrec_feedback.data.tfrecord import read_records
from tfrec_feedback.denoising.recorder import DenoisingRecorder
from tfrec_feedback.feeds import RequestFeed
from tfrec_feedback.models import build_model


def features(manifest, split):
    for path in manifest.shard_paths(split):
        for _, record in read_records(path):
            yield tf.train.Example.FromString(record).features.feature


def test_labels_are_those_of_the_truth_row_by_row(tiny_data):
    written = pd.read_parquet(tiny_data.directory / "truth.parquet")
    of_request = dict(iter(written.groupby("request_id", sort=False)))
    rows = 0
    for split in tiny_data.splits:
        false = 0
        dataset = request_dataset(tiny_data, split, 16, metadata=True, truth=True)
        for inputs, labels, _, identity in dataset:
            sizes = inputs["num_candidates"].numpy()
            marked = labels["false_positive"].numpy()
            assert marked.shape == labels["ctr"].shape
            for r, name in enumerate(identity["request_id"].numpy()):
                expected = of_request[name.decode()]
                assert inputs["item_id"].numpy()[r, : sizes[r]].tolist() == list(expected.item_id)
                assert marked[r, : sizes[r]].tolist() == list(expected.false_click)
                assert not marked[r, sizes[r] :].any()
                rows += sizes[r]
            false += int(marked.sum())
        assert tiny_data.split(split).feedback["false_positive"] == false > 0
    assert rows == len(written)


def test_the_truth_is_no_input(tiny_data):
    schema = tiny_data.schema()
    named = [spec.name for spec in schema.training_inputs()] + [f.name for f in schema.features]
    assert not [name for name in named if "truth" in name or "false" in name]
    inputs, labels, *_ = next(iter(request_dataset(tiny_data, "train", 4)))
    assert TRUTH not in inputs
    assert sorted(labels) == ["ctr", "dislike"]


@pytest.mark.parametrize("truth", [None, pd.DataFrame({"satisfied": [1, 0, 1, 0, 0, 1]})])
def test_a_log_that_knows_no_false_clicks_is_written_as_ever(tmp_path, truth):
    manifest = prepare(small_source(truth=truth), tmp_path)
    assert not manifest.knows_false_positives
    assert not any(
        TRUTH in found for split in manifest.splits for found in features(manifest, split)
    )


def test_the_truth_adds_one_feature_and_changes_no_fingerprint(tmp_path):
    false = small_events()[["click"]].rename(columns={"click": "false_click"})
    plain = prepare(small_source(), tmp_path / "plain")
    known = prepare(small_source(truth=false), tmp_path / "known")
    assert (plain.fingerprint, known.knows_false_positives) == (known.fingerprint, True)
    assert known.split("train").feedback == {
        **plain.split("train").feedback,
        "false_positive": plain.split("train").feedback["click"],
    }
    pairs = zip(features(plain, "train"), features(known, "train"), strict=True)
    for before, after in pairs:
        assert list(after[TRUTH].int64_list.value) == list(before["label_click"].int64_list.value)
        assert {**after, TRUTH: None} == {**before, TRUTH: None}


def feed(manifest, steps, tmp_path):
    config = load_config(overrides=["data.batch_size=16"])
    model = build_model("dfn_no_feedback", manifest.schema(), embedding_dim=4, deep_units=[8])
    DenoisingRecorder(model, steps, manifest.knows_false_positives)
    return RequestFeed(config, manifest, model, tmp_path)


def test_training_asks_for_the_truth_where_it_is_watched(tiny_data, tmp_path):
    for steps, expected in ((5, True), (0, False)):
        batches = feed(tiny_data, steps, tmp_path).train(epoch=0, skip=0)
        assert ("false_positive" in batches.element_spec[1]) is expected


def test_a_folder_prepared_without_a_truth_is_trained_on_as_ever(data_without_truth, tmp_path):
    batches = feed(data_without_truth, 5, tmp_path).train(epoch=0, skip=0)
    _, labels, _ = next(iter(batches))
    assert sorted(labels) == ["ctr", "dislike"]


@pytest.fixture
def data_without_truth(tmp_path):
    """As an earlier version wrote it: `truth.parquet` beside records that do not hold it."""
    prepare(small_source(), tmp_path / "data")
    pd.DataFrame({"false_click": np.zeros(6)}).to_parquet(tmp_path / "data" / "truth.parquet")
    return load_manifest(tmp_path / "data")
