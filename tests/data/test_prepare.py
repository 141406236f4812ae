import json

import numpy as np
import pandas as pd
import pytest

from tests.data.logs import small_events, small_source
from tfrec_feedback.data import leaks
from tfrec_feedback.data import prepare as prepare_module
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.protobuf import decode_example
from tfrec_feedback.data.sources import load_source
from tfrec_feedback.data.tfrecord import read_records
from tfrec_feedback.schema import Feature, FeedbackSequence, Schema, Task, Vocabulary


def contents(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def records(manifest, split):
    return [decode_example(r) for p in manifest.shard_paths(split) for _, r in read_records(p)]


def request_ids(manifest, split):
    return [record["request_id"][0].decode() for record in records(manifest, split)]


@pytest.fixture(scope="module")
def simulated():
    return load_source("simulated", num_users=40, num_items=50, num_days=4, seed=1)


def test_a_prepared_folder_is_complete_and_counted(tmp_path):
    written = prepare(small_source(), tmp_path, fractions=(0.6, 0.2, 0.2), shards=1)
    manifest = load_manifest(tmp_path)
    assert manifest == written
    assert sorted(contents(tmp_path)) == [
        "manifest.json",
        "schema.json",
        "test/part-00000-of-00001.tfrecord",
        "train/part-00000-of-00001.tfrecord",
        "validation/part-00000-of-00001.tfrecord",
        "vocabularies/context_hour.txt",
        "vocabularies/item_id.txt",
        "vocabularies/item_tags.txt",
        "vocabularies/user_country.txt",
        "vocabularies/user_id.txt",
    ]
    train = manifest.splits["train"]
    assert (train.requests, train.candidates) == (3, 4)
    assert train.feedback == {"click": 2, "like": 1, "dislike": 1, "unclick": 1}
    assert (train.first_timestamp, train.last_timestamp) == (10, 20)
    assert train.candidates_histogram == {1: 2, 2: 1}
    assert sorted(request_ids(manifest, "train")) == ["ann:10", "ann:20", "bob:20"]
    assert request_ids(manifest, "validation") == ["ann:30"]
    assert request_ids(manifest, "test") == ["bob:40"]
    assert manifest.schema().vocabulary("item_id") == (1, 2, 3)
    assert manifest.options["history_length"] == 30
    assert manifest.report.rows == 6


def test_equal_input_gives_equal_bytes_and_another_seed_another_order(tmp_path, simulated):
    for name in ("a", "b"):
        prepare(simulated, tmp_path / name, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first = load_manifest(tmp_path / "a")
    other = prepare(simulated, tmp_path / "c", seed=2)
    assert request_ids(first, "train") != request_ids(other, "train")
    assert sorted(request_ids(first, "train")) == sorted(request_ids(other, "train"))
    assert first.fingerprint != other.fingerprint


def test_train_is_shuffled_over_shards_and_the_rest_is_in_time_order(tmp_path, simulated):
    manifest = prepare(simulated, tmp_path, shards=3)
    times = {s: [r["timestamp"][0] for r in records(manifest, s)] for s in manifest.splits}
    assert times["test"] == sorted(times["test"])
    assert times["validation"] == sorted(times["validation"])
    assert times["train"] != sorted(times["train"])
    assert max(times["train"]) < min(times["validation"]) <= max(times["validation"])
    sizes = [shard.records for shard in manifest.splits["train"].shards]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= 1


def test_histories_reach_back_over_splits_and_never_forward(tmp_path, simulated):
    manifest = prepare(simulated, tmp_path, lag_seconds=60.0, history_length=5, check_leaks=True)
    events = simulated.events
    checked = 0
    for record in records(manifest, "test"):
        limit = record["timestamp"][0] - 60_000
        mine = events[(events["user_id"] == int(record["user_key"][0]))]
        before = mine[(mine["timestamp"] < limit) & (mine["dislike"] == 0)]
        clicks = before[(before["click"] == 1) | (before["like"] == 1)].tail(5)
        assert record["click_timestamp"] == clicks["timestamp"].tolist()
        assert record["click_item_id"] == clicks["item_id"].tolist()
        assert record["click_length"] == [len(clicks)]
        checked += len(clicks)
    assert checked > 0


def test_samples_reach_beyond_the_histories_and_are_drawn_for_train_alone(tmp_path, simulated):
    manifest = prepare(simulated, tmp_path, history_length=1, num_samples=3, check_leaks=True)
    assert manifest.options["num_samples"] == 3
    events, older = simulated.events, 0
    unclicked = events[(events[["click", "like", "dislike"]] == 0).all(axis=1)]
    for record in records(manifest, "train"):
        mine = unclicked[unclicked["user_id"] == int(record["user_key"][0])]
        before = mine[mine["timestamp"] < record["timestamp"][0]]
        drawn = list(
            zip(record["unclick_sample_item_id"], record["unclick_sample_timestamp"], strict=True)
        )
        assert record["unclick_sample_length"] == [len(drawn)] == [min(3, len(before))]
        assert set(drawn) <= set(zip(before["item_id"], before["timestamp"], strict=True))
        older += sum(time < min(record["unclick_timestamp"]) for _, time in drawn)
    assert older > 0
    for split in ("validation", "test"):
        for record in records(manifest, split):
            assert record["unclick_sample_length"] == [0]
            assert record["unclick_sample_item_id"] == record["unclick_sample_timestamp"] == []


def test_samples_follow_the_seed_and_not_the_other_histories(tmp_path, simulated):
    def samples(name, **options):
        manifest = prepare(simulated, tmp_path / name, **options)
        rows = {r["request_id"][0]: r["unclick_sample_item_id"] for r in records(manifest, "train")}
        return rows, manifest.fingerprint

    first, fingerprint = samples("a", seed=1)
    assert samples("b", seed=1, histories=("unclick",))[0] == first
    assert samples("c", seed=2)[0] != first
    assert samples("d", seed=1, num_samples=3)[1] != fingerprint


def test_no_samples_are_written_where_none_are_wanted(tmp_path):
    manifest = prepare(small_source(), tmp_path, num_samples=0)
    assert manifest.schema().samples == ()
    names = {n for split in manifest.splits for r in records(manifest, split) for n in r}
    assert "click_item_id" in names
    assert not {name for name in names if "_sample_" in name}


def test_sessions_are_cut_at_pauses_and_counted_back(tmp_path, simulated):
    options = {"num_sessions": 2, "session_gap_minutes": 20.0, "histories": ("all",)}
    manifest = prepare(simulated, tmp_path, check_leaks=True, **options)
    assert (manifest.options["num_sessions"], manifest.options["session_gap_minutes"]) == (2, 20.0)
    assert [h.num_sessions for h in manifest.schema().histories] == [2]
    seen = set()
    for split in manifest.splits:
        for record in records(manifest, split):
            numbers, times = record["all_session"], record["all_timestamp"]
            assert len(numbers) == len(times)
            assert numbers[-1:] == [0][: len(times)]
            for pause, older, newer in zip(np.diff(times), numbers, numbers[1:], strict=False):
                assert older == min(newer + (pause > 20 * 60_000), 2)
            seen |= set(numbers)
    assert seen == {0, 1, 2}


def test_no_sessions_are_written_where_none_are_wanted(tmp_path):
    manifest = prepare(small_source(), tmp_path)
    assert [h.num_sessions for h in manifest.schema().histories] == [0] * 4
    names = {n for split in manifest.splits for r in records(manifest, split) for n in r}
    assert not {name for name in names if name.endswith("_session")}


def test_another_gap_is_another_fingerprint(tmp_path):
    prints = {
        prepare(small_source(), tmp_path / str(gap), session_gap_minutes=gap).fingerprint
        for gap in (30.0, 10.0)
    }
    assert len(prints) == 2
    with pytest.raises(ValueError, match="session_gap_minutes must be above 0, got 0"):
        prepare(small_source(), tmp_path / "none", session_gap_minutes=0.0)


def test_a_history_of_all_holds_every_earlier_exposure_once_in_time_order(tmp_path, simulated):
    manifest = prepare(simulated, tmp_path, histories=("all",), history_length=20)
    assert [h.name for h in manifest.schema().histories] == ["all"]
    events, longest = simulated.events, 0
    for record in records(manifest, "test"):
        mine = events[events["user_id"] == int(record["user_key"][0])]
        before = mine[mine["timestamp"] < record["timestamp"][0]]
        before = before.sort_values("timestamp", kind="stable").tail(20)
        assert record["all_item_id"] == before["item_id"].tolist()
        assert record["all_timestamp"] == before["timestamp"].tolist()
        longest = max(longest, len(before))
    assert longest == 20


def test_counts_of_feedback_do_not_depend_on_the_histories(tmp_path):
    every = prepare(small_source(), tmp_path / "a")
    other = prepare(small_source(), tmp_path / "b", histories=("all",))
    assert {n: s.feedback for n, s in every.splits.items()} == {
        n: s.feedback for n, s in other.splits.items()
    }
    assert list(other.splits["train"].feedback) == ["click", "like", "dislike", "unclick"]


def test_a_given_schema_decides(tmp_path):
    tokens = Vocabulary("int64", file="ids.txt", size=1)
    schema = Schema(
        context=(),
        candidate=(Feature("item_id", tokens, table="ids"),),
        histories=(FeedbackSequence("like", ("item_id",), max_length=2),),
        tasks=(Task("like", positive=("like",)),),
    )
    manifest = prepare(small_source(), tmp_path, schema=schema)
    assert [f.name for f in manifest.schema().features] == ["item_id"]
    assert manifest.schema().vocabulary("ids") == (1, 2, 3, 4)
    record = records(manifest, "train")[0]
    assert {"label_like", "like_item_id", "like_length"} <= set(record)
    assert not {"label_click", "click_item_id", "user_id"} & set(record)


def test_the_options_are_those_of_a_given_schema(tmp_path):
    ids = Feature("item_id", Vocabulary("int64", file="ids.txt", size=1))

    def options(name, *histories):
        schema = Schema(context=(), candidate=(ids,), histories=histories)
        manifest = prepare(small_source(), tmp_path / name, schema=schema)
        names = ("histories", "history_length", "num_samples", "num_sessions")
        return [manifest.options[n] for n in names]

    click = FeedbackSequence("click", ("item_id",), max_length=2, num_samples=3, num_sessions=1)
    like = FeedbackSequence("like", ("item_id",), max_length=5, num_samples=3, num_sessions=1)
    assert options("one", click) == [["click"], 2, 3, 1]
    assert options("two", click, like) == [["click", "like"], None, 3, 1]
    assert options("none") == [[], None, None, None]


def test_prepared_data_is_only_replaced_when_asked(tmp_path):
    prepare(small_source(), tmp_path, shards=2)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        prepare(small_source(), tmp_path, shards=1)
    assert contents(tmp_path) == before
    manifest = prepare(small_source(), tmp_path, shards=1, overwrite=True)
    assert [s.file for s in manifest.splits["train"].shards] == [
        "train/part-00000-of-00001.tfrecord"
    ]
    assert not (tmp_path / "train/part-00000-of-00002.tfrecord").exists()


def test_an_interrupted_run_is_cleaned_and_done_again(tmp_path, monkeypatch):
    write_vocabularies = prepare_module.write_vocabularies

    def killed(*args):
        write_vocabularies(*args)
        (tmp_path / "train/.part-00002-of-00003.tfrecord.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(prepare_module, "write_vocabularies", killed)
        prepare(small_source(), tmp_path, shards=3)
    (tmp_path / "notes.txt").write_text("mine")
    assert "train/part-00000-of-00003.tfrecord" in contents(tmp_path)
    manifest = prepare(small_source(), tmp_path, shards=1)
    after = contents(tmp_path)
    assert after.pop("notes.txt") == b"mine"
    prepare(small_source(), tmp_path / "whole", shards=1)
    assert after == contents(tmp_path / "whole")
    assert load_manifest(tmp_path) == manifest


def test_a_failure_leaves_no_manifest(tmp_path, monkeypatch):
    prepare(small_source(), tmp_path)

    def disk_full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(prepare_module, "write_shards", disk_full)
    with pytest.raises(OSError, match="disk full"):
        prepare(small_source(), tmp_path, overwrite=True)
    assert not (tmp_path / "manifest.json").exists()


def test_a_leak_in_the_written_records_leaves_no_manifest(tmp_path, monkeypatch):
    found = [leaks.Leak("part-0", "late.", "fix")]
    monkeypatch.setattr(leaks, "check_records", lambda manifest, schema: found)
    with pytest.raises(leaks.LeakError, match="part-0: late. fix"):
        prepare(small_source(), tmp_path, check_leaks=True)
    assert not (tmp_path / "manifest.json").exists()


def test_the_fingerprint_follows_the_files_contents(tmp_path):
    path = tmp_path / "log.csv"
    small_events().drop(columns="item_tags").to_csv(path, index=False)
    prints = [
        prepare(load_source("events", path), tmp_path / name).fingerprint for name in ("a", "b")
    ]
    path.write_text(path.read_text().replace("1.5", "1.6"))
    prints.append(prepare(load_source("events", path), tmp_path / "c").fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_the_truth_of_a_simulation_joins_by_request_and_item(tmp_path, simulated):
    prepare(simulated, tmp_path)
    truth = pd.read_parquet(tmp_path / "truth.parquet")
    assert truth[["request_id", "item_id"]].equals(simulated.events[["request_id", "item_id"]])
    assert np.array_equal(truth["click_probability"], simulated.truth["click_probability"])


def test_progress_is_told_for_every_stage(tmp_path):
    told: dict[str, list[tuple[int, int]]] = {}
    prepare(
        small_source(),
        tmp_path,
        shards=2,
        check_leaks=True,
        progress=lambda stage, done, total: told.setdefault(stage, []).append((done, total)),
    )
    assert list(told) == ["requests", "histories", "encoding", "writing", "leak check"]
    assert all(steps[0][0] == 0 and steps[-1][0] == steps[-1][1] for steps in told.values())


def test_the_manifest_says_nothing_of_this_machine(tmp_path):
    prepare(small_source(), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "directory" not in manifest
    assert str(tmp_path) not in json.dumps(manifest)
