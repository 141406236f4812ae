import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import evaluate, train
from pipelines.evaluate import main
from tests.pipelines.conftest import CHEAP_MODEL, failed, invoke
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.sources import load_source


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


def test_readers_of_the_last_report_keep_all_of_it(run_copy):
    (run_copy / "evaluation.json").write_text("the last report")
    with open(run_copy / "evaluation.json", encoding="utf-8") as reader:
        assert invoke(main, "--run", run_copy).exit_code == 0
        assert reader.read() == "the last report"
    assert json.loads((run_copy / "evaluation.json").read_text())["split"] == "test"


@pytest.mark.parametrize("cutoffs", ["abc", "10"])
def test_cutoffs_are_refused_on_impressions(cutoffs, run_copy):
    result = invoke(main, "--run", run_copy, "--cutoffs", cutoffs)
    assert failed(result, f"--cutoffs={cutoffs} is for interactions alone", "Leave it out")


def test_skipping_records_is_refused_on_interactions(run_copy, monkeypatch):
    monkeypatch.setattr(evaluate, "run_data", lambda *_: SimpleNamespace(format="interactions"))
    result = invoke(main, "--run", run_copy, "--skip-corrupt")
    assert failed(result, "--skip-corrupt is for records of requests alone", "Leave it out")


def test_damaged_files_of_a_run_are_named(run_copy):
    for name in ("model.keras", "run.json"):
        (run_copy / name).write_bytes((run_copy / name).read_bytes()[:100])
        assert failed(invoke(main, "--run", run_copy), f"{run_copy / name} is damaged")


def test_a_log_with_ids_in_any_script_is_trained_on_and_evaluated(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp,click,like,dislike"]
    for time in range(300):
        user, item, click = rng.integers(0, [9, 12, 2])
        lines.append(f"用户{user},商品{item},{time * 1000},{click},0,0")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare(load_source("events", tmp_path / "log.csv"), tmp_path / "data")
    run = tmp_path / "run"
    result = invoke(train.main, "--data", tmp_path / "data", "--output", run, *CHEAP_MODEL)
    assert result.exit_code == 0, result.output
    result = invoke(main, "--run", run)
    assert result.exit_code == 0, result.output
    assert json.loads((run / "evaluation.json").read_text())["users"] == 9
