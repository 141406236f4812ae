import pytest

from tests.data.logs import small_source
from tfrec_feedback.config import Config
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.models import MODELS, FeedbackModel
from tfrec_feedback.runs import model_schema, open_run
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
