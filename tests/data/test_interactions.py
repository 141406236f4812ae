import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.data.logs import prepared_simulation, real_data
from tfrec_feedback.data import interactions as module
from tfrec_feedback.data.dataset import check_shards, num_batches, request_dataset
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.interaction_table import load_interactions
from tfrec_feedback.data.interactions import Interactions, prepare_interactions
from tfrec_feedback.data.manifest import Manifest, ManifestError, Report, load_manifest
from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.schema import Vocabulary


def frame(*rows):
    return pd.DataFrame(rows, columns=["user", "item", "clean"])


def small_source(**changes):
    splits = {
        "train": frame((9, 500, True), (3, 40, False), (9, 40, True)),
        "validation": frame((3, 500, True)),
        "test": frame((12, 7, True)),
    }
    return Interactions("small", {**splits, **changes}, Report(rows=5))


def contents(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_a_prepared_folder_is_complete_and_counted(tmp_path):
    written = prepare_interactions(small_source(), tmp_path)
    manifest = load_manifest(tmp_path)
    assert manifest == written
    assert manifest.format == "interactions"
    assert sorted(contents(tmp_path)) == [
        "manifest.json",
        "schema.json",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
        "vocabularies/item_id.txt",
        "vocabularies/user_id.txt",
    ]
    train = manifest.split("train")
    assert train.feedback == {"click": 3, "false_positive": 1}
    assert (train.requests, train.candidates, train.users, train.items) == (3, 3, 2, 2)
    assert manifest.report.rows == 5


def test_files_hold_line_numbers_of_the_catalogue_of_all_splits(tmp_path):
    prepare_interactions(small_source(), tmp_path)
    schema = load_manifest(tmp_path).schema()
    assert schema.vocabulary("user_id") == (3, 9, 12)
    assert schema.vocabulary("item_id") == (7, 40, 500)
    table = pq.read_table(tmp_path / "train.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("user", "int32"),
        ("item", "int32"),
        ("clean", "bool"),
    ]
    assert table.to_pydict() == {
        "user": [1, 0, 1],
        "item": [2, 1, 1],
        "clean": [True, False, True],
    }
    assert pq.read_table(tmp_path / "test.parquet").to_pydict()["user"] == [2]


def test_the_schema_has_user_item_and_clicks_as_long_as_the_longest(tmp_path):
    schema = prepare_interactions(small_source(), tmp_path).schema()
    assert [feature.name for feature in schema.context] == ["user_id"]
    assert [feature.name for feature in schema.candidate] == ["item_id"]
    assert schema.feature("item_id").encoding == Vocabulary(
        "int64", file="vocabularies/item_id.txt", size=3
    )
    history = schema.history("click")
    assert (history.features, history.max_length, history.num_samples) == (("item_id",), 2, 0)
    assert [task.name for task in schema.tasks] == ["ctr", "dislike"]


def test_equal_interactions_give_equal_bytes_and_others_another_fingerprint(tmp_path):
    source = load_interaction_source("simulated-interactions", num_users=50, num_items=90)
    for name in ("a", "b"):
        prepare_interactions(source, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    fingerprint = prepare_interactions(small_source(), tmp_path / "c").fingerprint
    changed = small_source(test=frame((12, 7, False)))
    assert prepare_interactions(changed, tmp_path / "d").fingerprint != fingerprint
    assert str(tmp_path) not in (tmp_path / "a" / "manifest.json").read_text()


def test_a_folder_is_not_overwritten_by_accident(tmp_path):
    prepare_interactions(small_source(), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="already holds prepared data"):
        prepare_interactions(small_source(), tmp_path)
    assert contents(tmp_path) == before


def test_kinds_of_data_replace_each_other_without_leftovers(tmp_path):
    prepared_simulation(tmp_path)
    prepare_interactions(small_source(), tmp_path, overwrite=True)
    assert not [p for p in tmp_path.rglob("*.tfrecord")]
    assert len(contents(tmp_path)) == 7
    prepared_simulation(tmp_path, overwrite=True)
    assert not [p for p in tmp_path.rglob("*.parquet") if p.stem != "truth"]
    assert load_manifest(tmp_path).format == "requests"


def test_an_interrupted_preparation_leaves_no_manifest(tmp_path, monkeypatch):
    prepare_interactions(small_source(), tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(module, "write_vocabularies", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare_interactions(small_source(), tmp_path, overwrite=True)
    with pytest.raises(ManifestError, match="was interrupted"):
        load_manifest(tmp_path)
    monkeypatch.undo()
    manifest = prepare_interactions(small_source(), tmp_path)
    assert load_manifest(tmp_path) == manifest


def test_interactions_are_not_read_as_requests_nor_requests_as_interactions(tmp_path, tiny_data):
    manifest = prepare_interactions(small_source(), tmp_path)
    for read in (
        lambda: request_dataset(manifest, "train", 2),
        lambda: num_batches(manifest, "train", 2),
        lambda: check_shards(manifest, "train"),
    ):
        with pytest.raises(ManifestError, match=r"holds interactions .*load_interactions"):
            read()
    with pytest.raises(ManifestError, match=r"holds requests .*request_dataset"):
        load_interactions(tiny_data)


def test_manifests_from_before_interactions_are_of_requests(tiny_data):
    stored = json.loads(tiny_data.model_dump_json())
    del stored["format"]
    for split in stored["splits"].values():
        del split["users"], split["items"]
    manifest = Manifest.model_validate_json(json.dumps(stored))
    assert manifest.format == "requests"
    manifest.require("requests")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian": frame((1, 2, True))}, "Did you mean 'train'"),
        ({"train": frame()}, "nothing to train on"),
        ({"test": pd.DataFrame({"user": [1], "item": [2]})}, r"expected the columns \['user'"),
    ],
)
def test_what_cannot_be_prepared_is_refused(changes, message):
    with pytest.raises(EventLogError, match=message):
        small_source(**changes)


def test_an_empty_split_is_kept(tmp_path):
    empty = frame().astype({"user": "int64", "item": "int64", "clean": "bool"})
    manifest = prepare_interactions(small_source(validation=empty), tmp_path)
    assert manifest.split("validation").requests == 0
    assert len(load_interactions(manifest).split("validation")) == 0


def test_a_damaged_file_or_foreign_vocabulary_is_noticed(tmp_path):
    manifest = prepare_interactions(small_source(), tmp_path)
    manifest.splits["train"].requests = 4
    with pytest.raises(ManifestError, match="has 3 rows; the manifest says 4"):
        load_interactions(manifest)
    manifest.splits["train"].requests = 3
    schema = (tmp_path / "schema.json").read_text().replace('"size": 3', '"size": 2')
    (tmp_path / "schema.json").write_text(schema)
    with pytest.raises(ValueError, match=r"item indices outside \[0, 2\)"):
        load_interactions(manifest)


def test_the_published_ratings_survive_the_disk(tmp_path):
    source = load_interaction_source("adt-ratings", real_data("ml-100k"))
    table = load_interactions(prepare_interactions(source, tmp_path))
    users, items = source.catalogue()
    for name, raw in source.splits.items():
        read = table.split(name)
        np.testing.assert_array_equal(users[read.users], raw["user"])
        np.testing.assert_array_equal(items[read.items], raw["item"])
        np.testing.assert_array_equal(read.clean, raw["clean"])
