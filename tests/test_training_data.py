"""Data that a run cannot be trained on or judged by, and settings they have no use for."""

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.data.ratings import write_ratings
from tfrec_feedback.config import load_config
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.feeds import RequestFeed, _lacking_class, make_feed
from tfrec_feedback.models import build_model
from tfrec_feedback.schema import Task
from tfrec_feedback.training import make_optimizer, train

SMALL = ["model.name=dfn_no_feedback", "model.embedding_dim=4", "model.deep_units=[8]"]


def config(*overrides):
    return load_config(overrides=[*SMALL, *overrides])


def changed(manifest, split, **counts):
    """The manifest, with other counts of one split."""
    found = manifest.split(split)
    feedback = {**found.feedback, **counts.pop("feedback", {})}
    found = found.model_copy(update={**counts, "feedback": feedback})
    return manifest.model_copy(update={"splits": {**manifest.splits, split: found}})


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_requests_is_refused_before_training(split, tiny_data, tmp_path):
    empty = changed(tiny_data, split, requests=0)
    with pytest.raises(ValueError, match=rf"The {split} split of .* holds no requests .*Prepare"):
        train(config(), empty, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validation_split_that_a_metric_is_undefined_on_is_refused(tiny_data, tmp_path):
    none = changed(tiny_data, "validation", feedback={"dislike": 0})
    message = (
        "dislike_auc' is undefined: the validation split of .* holds no positives of the task "
        r"'dislike' \(.*Prepare .* larger validation split \(--split\), or choose a metric"
    )
    with pytest.raises(ValueError, match=message):
        train(config("train.monitor=dislike_auc"), none, tmp_path / "run")


@pytest.mark.parametrize(
    ("counts", "clicks", "dislikes"),
    [
        # click, like, dislike, unclick of 10 exposures
        ((4, 1, 1, 5), None, None),
        ((0, 0, 1, 9), "positives", None),
        ((0, 2, 1, 7), None, None),
        ((2, 0, 2, 8), "positives", None),  # every click is also a dislike
        ((4, 0, 0, 6), None, "positives"),
        ((9, 3, 0, 0), "negatives", "positives"),
        ((9, 0, 1, 0), None, None),
        ((0, 0, 10, 0), "positives", "negatives"),
        ((3, 0, 10, 0), "positives", "negatives"),
    ],
)
def test_classes_that_are_lacking_are_seen_in_the_counts(counts, clicks, dislikes, tiny_data):
    feedback = dict(zip(("click", "like", "dislike", "unclick"), counts, strict=True))
    split = changed(tiny_data, "validation", candidates=10, feedback=feedback).split("validation")
    ctr, dislike = Task("ctr", ("click", "like"), ("dislike",)), Task("dislike", ("dislike",))
    assert {task.name: task for task in tiny_data.schema().tasks} == {
        "ctr": ctr,
        "dislike": dislike,
    }
    assert _lacking_class(split, ctr) == clicks
    assert _lacking_class(split, dislike) == dislikes


def test_a_metric_that_turns_out_undefined_stops_the_run(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(RequestFeed, "validate", lambda feed: {"ctr_gauc": math.nan})
    with pytest.raises(ValueError, match=r"ctr_gauc' is nan .*nobody there .*another metric"):
        train(config("train.monitor=ctr_gauc"), tiny_data, tmp_path / "run")


def test_a_metric_of_a_task_that_the_data_lack_is_refused(tiny_data, tmp_path):
    copy = shutil.copytree(tiny_data.directory, tmp_path / "data")
    schema = json.loads((copy / "schema.json").read_text())
    schema["tasks"] = [task for task in schema["tasks"] if task["name"] == "ctr"]
    (copy / "schema.json").write_text(json.dumps(schema))
    message = r"not measured on these data; choose one of \['ctr_auc', 'ctr_gauc'\]"
    with pytest.raises(ValueError, match=message):
        train(config("train.monitor=dislike_auc"), load_manifest(copy), tmp_path / "run")


def test_settings_of_the_other_kind_of_data_are_refused(tiny_data, tmp_path):
    model = build_model("gmf", tiny_data.schema(), embedding_dim=2)
    with pytest.raises(ValueError, match="num_negatives=7 is for interactions alone.*Leave it out"):
        make_feed(config("data.num_negatives=7"), tiny_data, model, tmp_path)
    source = load_interaction_source("adt-ratings", write_ratings(tmp_path / "log", 12))
    interactions = prepare_interactions(source, tmp_path / "data")
    model = build_model("gmf", interactions.schema(), embedding_dim=2)
    with pytest.raises(ValueError, match="skip_corrupt is for records of requests.*Leave it out"):
        make_feed(config("data.skip_corrupt=true"), interactions, model, tmp_path)


def test_interactions_without_any_to_validate_on_are_refused(tmp_path):
    log = write_ratings(tmp_path / "log", 12)
    (log / "tiny.valid.noisy").write_text("")
    source = load_interaction_source("adt-ratings", log)
    manifest = prepare_interactions(source, tmp_path / "data")
    with pytest.raises(ValueError, match="The validation split of .* holds no interactions"):
        train(load_config(overrides=["model.name=gmf"]), manifest, tmp_path / "run")


@pytest.mark.parametrize(
    ("option", "name", "of"),
    [
        ("row_scale=3", "adam", "lazy_adam"),
        ("row_scale=3", "adagrad", "lazy_adam"),
        ("weight_decay=0.1", "adam", "lazy_adam"),
        ("initial_accumulator=3", "lazy_adam", "adagrad"),
    ],
)
def test_options_of_another_optimizer_are_refused(option, name, of):
    settings = config(f"optimizer.{option}", f"optimizer.name={name}")
    key = option.partition("=")[0]
    with pytest.raises(ValueError, match=rf"{key} is for {of} alone, got .*'{name}'. Set it to \d"):
        make_optimizer(settings.optimizer)


def test_every_configuration_that_comes_with_the_package_has_an_optimizer():
    paths = sorted((Path(__file__).parents[1] / "pipelines" / "configs").glob("*.toml"))
    assert paths
    for path in paths:
        make_optimizer(load_config(path).optimizer)


def test_batches_are_counted_without_damaged_records(tiny_data, tmp_path):
    copy = shutil.copytree(tiny_data.directory, tmp_path / "data")
    for path in load_manifest(copy).shard_paths("train"):
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
    manifest = load_manifest(copy)
    model = build_model("dfn_no_feedback", manifest.schema(), embedding_dim=2, deep_units=[2])
    settings = config("data.batch_size=1", "data.skip_corrupt=true")
    feed = make_feed(settings, manifest, model, tmp_path)
    assert feed.skipped_records == 2
    assert feed.num_batches == manifest.split("train").requests - 2
