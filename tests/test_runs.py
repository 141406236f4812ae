import shutil

import pytest

from tests.data.logs import small_source
from tfrec_feedback.config import Config
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.models import MODELS, FeedbackModel
from tfrec_feedback.runs import RunError, describe_run, load_run, model_schema, open_run
from tfrec_feedback.schema import Schema


class ReadsSessions(FeedbackModel):
    reads_sessions = True


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "reads_sessions", (ReadsSessions, {}))
    return prepare(small_source(), tmp_path / "data", num_sessions=3)


def config(name, **data):
    return Config.model_validate({"model": {"name": name}, "data": data})


def num_sessions(schema):
    return {history.name: history.num_sessions for history in schema.histories}


@pytest.mark.parametrize(
    ("name", "expected"), [("reads_sessions", 3), ("dfn", 0), ("a name nobody knows", 0)]
)
def test_only_a_model_that_reads_sessions_gets_them(manifest, name, expected):
    schema = model_schema(config(name), manifest)
    assert num_sessions(schema) == dict.fromkeys(("click", "unclick", "like", "dislike"), expected)


def test_what_is_dropped_is_in_no_model_s_schema(manifest):
    schema = model_schema(config("reads_sessions", drop=["like", "item_price"]), manifest)
    assert num_sessions(schema) == {"click": 3, "unclick": 3, "dislike": 3}
    assert [feature.name for feature in schema.candidate] == ["item_id", "item_tags"]


def test_a_run_s_folder_holds_the_schema_of_its_model(manifest, tmp_path):
    for name, expected in (("reads_sessions", 3), ("dfn", 0)):
        open_run(tmp_path / name, config(name), manifest)
        schema = Schema.from_json(tmp_path / name / "schema.json")
        assert schema == model_schema(config(name), manifest)
        assert schema.history("click").num_sessions == expected


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("manifest.json", "holds prepared data, and a run would write over its schema.json"),
        ("config.toml", "holds config.toml and no run.json"),
        ("vocabularies/item_id.txt", "holds vocabularies and no run.json"),
        ("best.weights.h5", "holds best.weights.h5 and no run.json"),
        ("evaluation.json", "holds evaluation.json and no run.json"),
    ],
)
def test_a_folder_with_what_a_run_would_write_over_is_refused(name, message, manifest, tmp_path):
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    path.write_text("another's")
    with pytest.raises(RunError, match=rf"{message}.*Choose another --output"):
        open_run(tmp_path / "folder", config("dfn"), manifest)
    assert files(tmp_path / "folder") == {path: b"another's"}


def test_logs_and_the_like_may_lie_in_the_folder_of_a_run(manifest, tmp_path):
    others = [tmp_path / "run" / name for name in ("train.log", "tensorboard/events", ".gitkeep")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a log")
    open_run(tmp_path / "run", config("dfn"), manifest)
    assert {path.read_text() for path in others} == {"a log"}


def test_a_start_that_was_cut_short_is_made_whole_by_the_next(manifest, tmp_path):
    run = tmp_path / "run"
    open_run(run, config("dfn"), manifest)
    whole = files(run)
    assert run / "config.toml" in whole
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    open_run(run, config("dfn"), manifest)
    assert files(run) == whole


def test_a_damaged_description_is_named(manifest, tmp_path):
    run = tmp_path / "run"
    open_run(run, config("dfn"), manifest)
    (run / "run.json").write_text((run / "run.json").read_text()[:40])
    for use in (describe_run, lambda run: open_run(run, config("dfn"), manifest)):
        with pytest.raises(RunError, match=rf"{run / 'run.json'} is damaged, expected .*train"):
            use(run)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_damaged_model_is_named(kept, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    data = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(
        RunError, match=rf"{run / 'model.keras'} is damaged, or was .*train it again"
    ):
        load_run(run)
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match=f"{run / 'model.keras'}"):
        load_run(run)
