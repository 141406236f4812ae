import json
import shutil

from pipelines.evaluate import main
from tests.pipelines.conftest import failed, invoke


def test_metrics_are_printed_and_written(run_copy, tiny_data):
    result = invoke(main, "--run", run_copy)
    assert result.exit_code == 0, result.output
    report = json.loads((run_copy / "evaluation.json").read_text())
    assert (report["split"], report["data"]) == ("test", "simulated")
    assert report["exposures"] == tiny_data.splits["test"].candidates
    assert f"{report['tasks']['ctr']['auc']['value']:.4f}" in result.output
    assert f"{report['slices']['request size']['5-9']['ctr_auc']:.4f}" in result.output
    assert "not the data" not in result.output


def test_an_unknown_split_is_one_line(run_copy):
    result = invoke(main, "--run", run_copy, "--split", "tset")
    assert failed(result, "Unknown split 'tset'", "Did you mean 'test'")
    assert not (run_copy / "evaluation.json").exists()


def test_a_missing_or_unfinished_run_is_one_line(run_copy, tmp_path):
    assert failed(invoke(main, "--run", tmp_path / "none"), "No run in")
    described = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_text(json.dumps({**described, "finished": False}))
    assert failed(invoke(main, "--run", run_copy), "is not finished")


def test_missing_data_is_one_line(run_copy, tmp_path):
    assert failed(invoke(main, "--run", run_copy, "--data", tmp_path / "none"), "No manifest.json")


def test_a_damaged_shard_is_named_or_skipped(run_copy, damaged):
    folder, files = damaged
    options = ["--run", run_copy, "--data", folder]
    assert failed(invoke(main, *options), f"Corrupt TFRecord {files['test']} at byte 0")
    result = invoke(main, *options, "--skip-corrupt")
    assert result.exit_code == 0, result.output
    assert "1 damaged records skipped" in result.output


def test_other_data_than_the_runs_are_pointed_out(run_copy, data_copy):
    manifest = json.loads((data_copy / "manifest.json").read_text())
    (data_copy / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "other"}))
    result = invoke(main, "--run", run_copy, "--data", data_copy, "--split", "validation")
    assert result.exit_code == 0, result.output
    assert "not the data the run was trained on" in result.output


def test_two_runs_are_compared_on_the_same_exposures(run_copy, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_copy, other)
    described = json.loads((other / "run.json").read_text())
    described["config"]["data"]["batch_size"] = 7  # would put exposures in another order
    (other / "run.json").write_text(json.dumps(described))
    result = invoke(main, "--run", run_copy, "--against", other)
    assert result.exit_code == 0, result.output
    against = json.loads((run_copy / "evaluation.json").read_text())["against"]["tasks"]["ctr"]
    assert against["auc_difference"] == 0.0
    assert against["p_value"] == 1.0
    assert against["gauc_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "+0.0000" in result.output
