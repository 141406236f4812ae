import dataclasses
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.conformance import assert_close
from tfrec_feedback.data.dataset import (
    check_shards,
    epoch_seed,
    naming_damage,
    num_batches,
    request_dataset,
)
from tfrec_feedback.data.protobuf import encode_example
from tfrec_feedback.data.tfrecord import CorruptRecordError, read_records, write_records
from tfrec_feedback.layers import FeatureEncoder
from tfrec_feedback.models import build_model

SIZE = 16


def ids(dataset):
    return [identity["request_id"].numpy().tolist() for _, _, _, identity in dataset]


def flat(batches):
    return [request for batch in batches for request in batch]


@pytest.fixture
def copied(tiny_data, tmp_path):
    """The prepared folder, to be damaged."""
    shutil.copytree(tiny_data.directory, tmp_path / "data")
    copy = tiny_data.model_copy()
    copy.directory = tmp_path / "data"
    return copy


def damage(path, record):
    """Flips one bit inside the payload of a record, and returns where the record starts."""
    offset = list(read_records(path))[record][0]
    data = bytearray(path.read_bytes())
    data[offset + 12 + 5] ^= 1
    path.write_bytes(data)
    return offset


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_request_is_read_exactly_once(tiny_data, split, seed):
    batches = ids(request_dataset(tiny_data, split, SIZE, shuffle_seed=seed, metadata=True))
    assert len(set(flat(batches))) == len(flat(batches)) == tiny_data.splits[split].requests
    assert len(batches) == num_batches(tiny_data, split, SIZE)


def test_candidates_are_those_the_manifest_counts(tiny_data):
    dislikes = candidates = 0
    for features, labels, weights in request_dataset(tiny_data, "train", SIZE):
        valid = features["num_candidates"].numpy()
        assert features["item_id"].shape == labels["ctr"].shape == weights.shape
        assert features["item_id"].shape[1] == valid.max()
        candidates += valid.sum()
        dislikes += labels["dislike"].numpy().sum()
    split = tiny_data.splits["train"]
    assert (candidates, dislikes) == (split.candidates, split.feedback["dislike"])


def test_the_seed_decides_the_order(tiny_data):
    def order(seed):
        return ids(request_dataset(tiny_data, "train", SIZE, shuffle_seed=seed, metadata=True))

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(flat(order(1))) == sorted(flat(order(2)))


def test_epochs_have_their_own_seeds():
    seeds = [epoch_seed(seed, epoch) for seed in (0, 1) for epoch in range(5)]
    assert len(set(seeds)) == 10
    assert seeds[0] == epoch_seed(0, 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("skip", [1, 4])
def test_skipped_batches_are_the_first_ones(tiny_data, skip):
    options = {"shuffle_seed": 5, "metadata": True}
    every = ids(request_dataset(tiny_data, "train", SIZE, **options))
    rest = ids(request_dataset(tiny_data, "train", SIZE, skip_batches=skip, **options))
    assert rest == every[skip:]
    assert len(rest) > 0


def test_a_batch_holds_one_bucket_of_sizes(tiny_data):
    buckets = set()
    for features, _, _ in request_dataset(tiny_data, "train", SIZE, shuffle_seed=0):
        sizes = features["num_candidates"].numpy()
        bucket = set(np.ceil(np.log2(sizes)).astype(int).tolist())
        assert len(bucket) == 1, sizes
        buckets |= bucket
    # 4 candidates, 5 to 8, and 9 or 10.
    assert buckets == {2, 3, 4}


def test_encoding_in_the_pipeline_gives_the_same_logits(tiny_data):
    model = build_model("dfn", tiny_data.schema(), embedding_dim=4, num_heads=1)
    raw = next(iter(request_dataset(tiny_data, "test", SIZE)))
    encoded = next(iter(request_dataset(tiny_data, "test", SIZE, encoder=model.encoder)))
    assert "candidate_rows" in encoded[0]
    assert "item_id" not in encoded[0]
    assert_close(model(encoded[0]), model(raw[0]), 1e-6)
    np.testing.assert_array_equal(encoded[1]["ctr"], raw[1]["ctr"])


def test_samples_are_read_when_asked_for_and_encoded(tiny_data):
    schema = tiny_data.schema()
    extra = {spec.name for spec in schema.training_inputs()} - {s.name for s in schema.inputs()}
    plain = next(iter(request_dataset(tiny_data, "train", SIZE)))[0]
    raw = next(iter(request_dataset(tiny_data, "train", SIZE, samples=True)))[0]
    assert set(raw) - set(plain) == extra
    encoder = FeatureEncoder(schema)
    encoded = next(iter(request_dataset(tiny_data, "train", SIZE, encoder=encoder, samples=True)))
    longest = raw["unclick_sample_length"].numpy().max()
    assert longest > 0
    assert encoded[0]["unclick_sample_rows"].shape[:2] == (SIZE, longest)


def test_no_samples_are_read_where_the_schema_has_none(tiny_data):
    schema = tiny_data.schema()
    histories = tuple(dataclasses.replace(h, num_samples=0) for h in schema.histories)
    encoder = FeatureEncoder(dataclasses.replace(schema, histories=histories))
    batches = [
        next(iter(request_dataset(tiny_data, "train", SIZE, encoder=encoder, samples=samples)))
        for samples in (False, True)
    ]
    assert set(batches[0][0]) == set(batches[1][0])


def test_intact_shards_are_read_as_they_are(tiny_data):
    paths, stats = check_shards(tiny_data, "train")
    assert paths == tiny_data.shard_paths("train")
    assert (stats.records, stats.skipped) == (tiny_data.splits["train"].requests, 0)


def test_a_damaged_record_is_named_with_file_and_offset(copied):
    path = copied.shard_paths("train")[1]
    offset = damage(path, record=3)
    with pytest.raises(CorruptRecordError, match=re.escape(f"{path} at byte {offset}")) as error:
        check_shards(copied, "train")
    assert error.value.offset == offset
    assert "checksum of the record's payload" in error.value.reason


def test_the_pipeline_names_the_damage_too(copied):
    path = copied.shard_paths("test")[0]
    offset = damage(path, record=2)
    with (
        pytest.raises(CorruptRecordError, match=re.escape(f"{path} at byte {offset}")),
        naming_damage(copied, "train", "test"),
    ):
        ids(request_dataset(copied, "test", SIZE, metadata=True))


def test_other_errors_of_tensorflow_pass_unchanged(tiny_data):
    with pytest.raises(tf.errors.InvalidArgumentError), naming_damage(tiny_data, "test"):
        tf.reshape(tf.zeros([3]), [2])


def test_damaged_records_are_skipped_and_counted(copied, tmp_path):
    path = copied.shard_paths("train")[1]
    offset = damage(path, record=3)
    paths, stats = check_shards(copied, "train", scratch=tmp_path)
    requests = copied.splits["train"].requests
    assert (stats.records, stats.skipped) == (requests - 1, 1)
    (described,) = stats.damage
    assert f"{path} at byte {offset}" in described
    assert paths[0] == copied.shard_paths("train")[0]
    assert paths[1].parent == tmp_path
    read = flat(ids(request_dataset(copied, "train", SIZE, paths=paths, metadata=True)))
    assert len(set(read)) == len(read) == requests - 1


def test_a_record_of_another_schema_is_damage(copied, tmp_path):
    path = copied.shard_paths("validation")[0]
    records = [payload for _, payload in read_records(path)]
    write_records(path, [records[0], encode_example({"price": ("float32", [1.0])}), *records[1:]])
    offset = list(read_records(path))[1][0]
    with pytest.raises(CorruptRecordError, match="does not fit the schema") as error:
        check_shards(copied, "validation")
    assert (error.value.file, error.value.offset) == (str(path), offset)
    paths, stats = check_shards(copied, "validation", scratch=tmp_path)
    assert stats.records == copied.splits["validation"].requests
    assert stats.skipped == 1
    assert f"{path} at byte {offset}" in stats.damage[0]
    assert [payload for _, payload in read_records(paths[0])] == records


@pytest.mark.parametrize(
    ("split", "size", "message"),
    [("test", 0, "at least 1 request, got 0"), ("tset", 8, "Did you mean 'test'")],
)
def test_wrong_arguments_are_refused(tiny_data, split, size, message):
    with pytest.raises(ValueError, match=message):
        request_dataset(tiny_data, split, size)
