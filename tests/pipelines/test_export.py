import json

from pipelines.export import main
from tests.pipelines.conftest import failed, invoke


def test_a_run_is_published_under_the_version_asked_for(run_copy, tmp_path):
    (run_copy / "evaluation.json").write_text('{"split": "test"}')
    base = tmp_path / "models"
    result = invoke(main, "--run", run_copy, "--output", base, "--version", 12)
    assert result.exit_code == 0, result.output
    assert f"Published {base / '12'}" in result.output
    assert (base / "12" / "saved_model.pb").is_file()
    extra = base / "12" / "assets.extra"
    assert json.loads((extra / "metrics.json").read_text()) == {"split": "test"}
    again = invoke(main, "--run", run_copy, "--output", base, "--version", 12)
    assert failed(again, "Version 12 is already published", "--version")
    assert [path.name for path in base.iterdir()] == ["12"]


def test_a_missing_or_unfinished_run_is_one_line(run_copy, tmp_path):
    base = tmp_path / "models"
    assert failed(invoke(main, "--run", tmp_path / "none", "--output", base), "No run in")
    described = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_text(json.dumps({**described, "finished": False}))
    assert failed(invoke(main, "--run", run_copy, "--output", base), "is not finished")
    assert not base.exists()


def test_a_version_of_0_is_one_line(run_copy, tmp_path):
    result = invoke(main, "--run", run_copy, "--output", tmp_path / "models", "--version", 0)
    assert failed(result, "A version is a positive integer of 63 bits, got 0")
