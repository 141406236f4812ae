import json

import pytest

from tests.data.logs import small_events, small_source
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.folder import IN_PROGRESS, check_output, claim_folder, owned_files
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.manifest import ManifestError
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.sources import load_interaction_source, load_source
from tfrec_feedback.schema import Schema


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def contents(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def simulated(kind):
    if kind == "requests":
        return lambda folder, **options: prepare(small_source(), folder, **options)
    source = load_interaction_source("simulated-interactions", num_users=30, num_items=90)
    return lambda folder, **options: prepare_interactions(source, folder, **options)


@pytest.mark.parametrize("kind", ["requests", "interactions"])
def test_replacing_leaves_other_files_alone(tmp_path, kind):
    theirs = ["notes.txt", "train/mine.tfrecord", "other/part-00000-of-00001.tfrecord"]
    theirs += ["vocabularies/mine.txt", "test_noisy.parquet.old", "train/.part-mine.tmp"]
    if kind == "requests":
        theirs += ["train.parquet", "validation_clean.parquet"]
    write(tmp_path, *theirs)
    before = contents(tmp_path)
    owned = {str(file) for file in contents(simulated(kind)(tmp_path).directory)} - {*before}
    assert owned <= owned_files(tmp_path)
    simulated(kind)(tmp_path, overwrite=True)
    after = contents(tmp_path)
    assert {name: after[name] for name in theirs} == before
    assert not (tmp_path / IN_PROGRESS).exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("requests", "schema.json"),
        ("requests", "vocabularies/item_id.txt"),
        ("requests", "train/part-00000-of-00001.tfrecord"),
        ("interactions", "train.parquet"),
        ("interactions", "vocabularies/user_id.txt"),
    ],
)
def test_a_file_that_no_preparation_wrote_is_not_written_over(tmp_path, kind, name):
    write(tmp_path, name, "truth.parquet", "vocabularies/other.txt")
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=f"holds \\['{name}'\\], and nothing there says"):
            simulated(kind)(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_log_in_the_output_folder_is_refused_and_kept(tmp_path):
    events = small_events().drop(columns="item_tags")
    for name in ("train", "validation", "test"):
        events.to_parquet(tmp_path / f"{name}.parquet")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"test\.parquet is to be read, so it must not be in"):
        prepare(load_source("events", tmp_path), tmp_path, overwrite=True)
    assert contents(tmp_path) == before
    assert prepare(load_source("events", tmp_path), tmp_path / "out").split("train").requests


def test_ratings_in_the_output_folder_are_refused_and_kept(tmp_path):
    for name in ("train.rating", "valid.rating", "test.negative"):
        (tmp_path / f"small.{name}").write_text("1\t1\t5\n")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="is to be read"):
        prepare_interactions(load_interaction_source("adt-ratings", tmp_path), tmp_path)
    assert contents(tmp_path) == before


def test_a_schema_in_the_output_folder_is_refused_and_kept(tmp_path):
    schema = prepare(small_source(), tmp_path / "first").schema()
    (tmp_path / "mine").mkdir()
    schema.to_json(tmp_path / "mine" / "schema.json")
    before = contents(tmp_path)
    for folder, output in (("mine", "mine"), ("mine", "."), ("first", "first")):
        given = Schema.from_json(tmp_path / folder / "schema.json")
        with pytest.raises(FileExistsError, match="is to be read"):
            prepare(small_source(), tmp_path / output, schema=given, overwrite=True)
    assert contents(tmp_path) == before


def test_inputs_beside_the_output_folder_are_none_of_its_business(tmp_path):
    write(tmp_path, "output-old/log.csv", "log.csv")
    check_output(tmp_path / "output", False, [tmp_path, *tmp_path.rglob("*.csv")])
    with pytest.raises(FileExistsError, match="is to be read"):
        check_output(tmp_path / "a" / "..", False, [tmp_path / "log.csv"])


def test_an_interrupted_claim_is_known_to_be_ours(tmp_path):
    claim_folder(tmp_path, ["schema.json", "train/part-0", "test/part-0"])
    write(tmp_path, "schema.json", "train/part-0", "test/.part-0.tmp", "test/part-1")
    assert owned_files(tmp_path) == {"manifest.json", "schema.json", "train/part-0", "test/part-0"}
    claim_folder(tmp_path, ["test/part-2"])
    assert sorted(contents(tmp_path)) == [IN_PROGRESS, "test/part-1"]
    # What the first one was to write may still come from it: both stay listed.
    assert owned_files(tmp_path) >= {"train/part-0", "test/part-2"}


def test_a_manifest_of_another_program_is_kept(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "an extension"}))
    write(tmp_path, "schema.json")
    before = contents(tmp_path)
    with pytest.raises(
        ManifestError, match=r"(?s)not a manifest this version reads.*another folder"
    ):
        prepare(small_source(), tmp_path, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("path", ["../log.csv", "train/../../log.csv", "/log.csv"])
def test_a_listed_path_never_leads_out_of_the_folder(tmp_path, path):
    write(tmp_path, "log.csv")
    path = str(tmp_path / "log.csv") if path.startswith("/") else path
    write(tmp_path, f"out/{IN_PROGRESS}")
    (tmp_path / "out" / IN_PROGRESS).write_text(json.dumps([path, "train/part-0"]))
    assert owned_files(tmp_path / "out") == {"train/part-0"}
    prepare(small_source(), tmp_path / "out")
    assert (tmp_path / "log.csv").exists()


def test_what_cannot_be_prepared_touches_nothing(tmp_path):
    prepare(small_source(), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(EventLogError, match="cannot be built"):
        prepare(small_source(), tmp_path, histories=("clik",), overwrite=True)
    assert contents(tmp_path) == before
