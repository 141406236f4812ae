import json

import pytest

from tfrec_feedback.data.manifest import (
    Manifest,
    ManifestError,
    Report,
    Shard,
    Split,
    load_manifest,
    save_manifest,
)
from tfrec_feedback.schema import Feature, Identity, Schema


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/part-0").write_bytes(b"12345")
    split = Split(
        shards=[Shard(file="train/part-0", records=2, bytes=5)],
        requests=2,
        candidates=5,
        feedback={"click": 1},
        candidates_histogram={2: 1, 3: 1},
    )
    manifest = Manifest(
        source="small",
        fingerprint="abc",
        options={"history_length": 30},
        report=Report(rows=5),
        splits={"train": split},
    )
    save_manifest(manifest, tmp_path)
    return tmp_path


def test_a_manifest_survives_the_disk(folder):
    manifest = load_manifest(folder)
    assert manifest.directory == folder
    assert manifest.splits["train"].candidates_histogram == {2: 1, 3: 1}
    assert manifest.shard_paths("train") == [folder / "train/part-0"]


def test_the_file_names_no_directory(folder):
    assert str(folder) not in (folder / "manifest.json").read_text()
    assert not list(folder.glob(".*.tmp"))


def test_the_schema_is_read_from_the_folder(folder):
    schema = Schema(context=(), candidate=(Feature("item_id", Identity(3)),))
    schema.to_json(folder / "schema.json")
    manifest = load_manifest(folder)
    assert manifest.schema() == schema
    assert manifest.schema().directory == folder


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(ManifestError, match="python -m pipelines.prepare"):
        load_manifest(tmp_path)


def test_a_missing_shard_is_named(folder):
    (folder / "train/part-0").unlink()
    with pytest.raises(ManifestError, match="part-0 is listed in the manifest but missing"):
        load_manifest(folder)


def test_a_shard_of_another_size_is_named(folder):
    (folder / "train/part-0").write_bytes(b"1234")
    with pytest.raises(ManifestError, match="part-0 has 4 bytes; the manifest says 5"):
        load_manifest(folder)


def test_an_unknown_split_is_answered_with_the_closest(folder):
    with pytest.raises(ManifestError, match="Did you mean 'train'"):
        load_manifest(folder).shard_paths("trian")


@pytest.mark.parametrize("text", ["{", json.dumps({"source": "small"})])
def test_what_is_not_a_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match="Prepare the data again"):
        load_manifest(folder)


def test_data_of_the_other_kind_is_refused_with_its_reader(folder):
    manifest = load_manifest(folder)
    manifest.require("requests")
    with pytest.raises(ManifestError, match=r"holds requests .*and interactions are needed here"):
        manifest.require("interactions")
