import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import small_source
from tfrec_feedback.data.leaks import (
    LeakError,
    check_names,
    check_records,
    check_shard,
    check_statistics,
    exact_auc,
)
from tfrec_feedback.data.manifest import Manifest, Report, Shard, Split
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.protobuf import decode_example, encode_example, raw_features
from tfrec_feedback.data.tfrecord import read_records, write_records
from tfrec_feedback.schema import Feature, FeedbackSequence, Hashing, Identity, Schema

ITEM = Feature("item_id", Identity(9))


def schema_with(*names):
    return Schema(context=(), candidate=(ITEM, *(Feature(n, Hashing(9)) for n in names)))


def record(time, clicks, name="r"):
    return encode_example(
        {
            "item_id": ("int64", [1]),
            "click_timestamp": ("int64", clicks),
            "timestamp": ("int64", [time]),
            "request_id": ("string", [name]),
        }
    )


@pytest.fixture
def shard(tmp_path):
    def write(*records):
        path = tmp_path / "part"
        write_records(path, records)
        return path

    return write


def test_histories_before_their_requests_are_no_leak(shard):
    path = shard(record(100, []), record(100, [1, 99]), record(5000, [300, 4999]))
    assert check_shard(path, "part", ["click_timestamp"]) == []


@pytest.mark.parametrize("late", [100, 101])
def test_a_planted_future_event_is_found_with_its_record(shard, late):
    first = record(100, [1, 2])
    path = shard(first, record(100, [3, late], "guilty"), record(100, []))
    (leak,) = check_shard(path, "part", ["click_timestamp"])
    assert f"part, record at byte {len(first) + 16}, request b'guilty'" in str(leak)
    assert f"click_timestamp holds {late}" in str(leak)


def test_the_lag_counts(shard):
    path = shard(record(1000, [899]), record(1000, [900]))
    assert check_shard(path, "part", ["click_timestamp"], lag_ms=99) == []
    (leak,) = check_shard(path, "part", ["click_timestamp"], lag_ms=100)
    assert "holds 900" in leak.problem


def test_a_record_without_times_cannot_pass(shard):
    path = shard(record(100, []))
    (leak,) = check_shard(path, "part", ["like_timestamp"])
    assert "has no like_timestamp" in leak.problem


def test_every_shard_of_the_manifest_is_read(shard):
    path = shard(record(5000, [4500]))
    shards = [Shard(file="part", records=1, bytes=1)]
    split = Split(shards=shards, requests=1, candidates=1, feedback={}, candidates_histogram={})
    manifest = Manifest(
        directory=path.parent,
        source="s",
        fingerprint="f",
        options={"lag_seconds": 0.5},
        report=Report(),
        splits={"test": split},
    )
    histories = (FeedbackSequence("click", ("item_id",)),)
    schema = Schema(context=(), candidate=(ITEM,), histories=histories)
    assert len(check_records(manifest, schema)) == 1
    manifest.options["lag_seconds"] = 0.4
    assert check_records(manifest, schema) == []


@pytest.mark.parametrize("late", [100, 101])
def test_a_planted_future_sample_is_found(tmp_path, late):
    manifest = prepare(small_source(), tmp_path, shards=1, check_leaks=True)
    assert check_records(manifest, manifest.schema()) == []
    (path,) = manifest.shard_paths("train")
    tampered = []
    for _, payload in read_records(path):
        features = raw_features(payload)
        values = {
            name: (dtype, decode_example(payload)[name]) for name, (dtype, _) in features.items()
        }
        values["timestamp"] = ("int64", [100])
        values["like_sample_timestamp"] = ("int64", [99, late])
        tampered.append(encode_example(values))
    write_records(path, tampered)
    (leak,) = check_records(manifest, manifest.schema())
    assert f"like_sample_timestamp holds {late}, which is not before" in leak.problem


@pytest.mark.parametrize(
    "name", ["item_play_time_ms", "item_long_view", "item_is_hate", "item_dwell_time", "item_click"]
)
def test_inputs_named_like_post_exposure_columns_are_leaks(name):
    (leak,) = check_names(schema_with(name), ())
    assert name in leak.where


@pytest.mark.parametrize("declared", ["secret_ms", "item_secret_ms", "item_secret"])
def test_columns_the_source_declares_are_leaks(declared):
    (leak,) = check_names(schema_with("item_secret_ms"), (declared,))
    assert "declares" in leak.problem


def test_ordinary_names_are_no_leaks():
    schema = schema_with("item_duration", "item_author_id", "item_like_count", "item_age_days")
    assert check_names(schema, ("play_time_ms",)) == []


def statistical_log(size=2000):
    rng = np.random.default_rng(0)
    click = rng.integers(0, 2, size)
    return pd.DataFrame(
        {
            "item_id": rng.integers(1, 9, size),
            "timestamp": np.arange(size),
            "click": click,
            "dislike": np.zeros(size, np.int64),
            "item_noise": rng.normal(size=size),
            "item_flag": np.where(click, "y", "n"),
            # Watched milliseconds: nearly every value is new, only their size tells.
            "item_whole": click * 10_000 + rng.integers(0, 9_000, size),
            "item_real": click + rng.normal(0, 0.1, size),
            "item_list": [("y", "z") if c else () for c in click],
        }
    )


@pytest.mark.parametrize("name", ["item_flag", "item_whole", "item_real", "item_list"])
def test_a_leak_under_an_innocent_name_is_found_by_its_statistics(name):
    log = statistical_log()
    (leak,) = check_statistics(schema_with("item_noise", name), log, np.arange(len(log)))
    assert leak.where == f"feature {name!r}"
    assert "predicts 'click' with AUC" in leak.problem


def test_harmless_features_and_rare_feedback_pass():
    log = statistical_log()
    assert check_statistics(schema_with("item_noise"), log, np.arange(len(log))) == []
    # 49 positives in the second half are too few to judge by.
    few = log.assign(click=0, item_flag="n")
    few.loc[len(few) - 49 :, ["click", "item_flag"]] = [1, "y"]
    assert check_statistics(schema_with("item_flag"), few, np.arange(len(few))) == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=20))
def test_auc_counts_ordered_pairs(rows):
    positive = [score for label, score in rows if label]
    negative = [score for label, score in rows if not label]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    expected = sum(pairs) / len(pairs) if pairs else 0.5
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float)
    assert exact_auc(labels, scores) == pytest.approx(expected)


def test_a_leaking_log_is_not_prepared(tmp_path):
    source = small_source(post_exposure=("price",))
    with pytest.raises(LeakError, match="feature 'item_price'.*Remove the column"):
        prepare(source, tmp_path / "out", check_leaks=True)
    assert not (tmp_path / "out").exists()
    assert prepare(source, tmp_path / "out").splits["train"].requests
