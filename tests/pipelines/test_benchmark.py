import csv
import dataclasses
import shutil

import pytest

from pipelines.benchmark import _notes, main
from tests.pipelines.conftest import failed, invoke
from tfrec_feedback.benchmark.rows import dropped_rows, model_rows, sweep_rows
from tfrec_feedback.benchmark.study import Study

SMALL = ["--set", "model.embedding_dim=4", "--set", "model.deep_units=[8]"]
SMALL += ["--set", "data.batch_size=64", "--set", "train.epochs=1"]


@pytest.fixture(scope="module")
def compared(tiny_data, tmp_path_factory):
    """What the command printed, and the folder of its results: one model, two seeds, no tuning."""
    output = tmp_path_factory.mktemp("benchmark")
    options = ["--models", "dfn_no_feedback", "--seeds", 2, "--budget", 0, *SMALL]
    return run(tiny_data, output, *options), output / "simulated"


def run(data, output, *options):
    return invoke(
        main, "--suite", "simulated", "--data", data.directory, "--output", output, *options
    )


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_command_trains_compares_and_writes_table_and_report(compared):
    result, folder = compared
    assert result.exit_code == 0, result.output
    assert "dfn_no_feedback, seed 0: ctr_auc 0." in result.output
    assert "dfn_no_feedback, seed 1: ctr_auc 0." in result.output
    assert f"Written to {folder / 'table.csv'} and {folder / 'report.html'}" in result.output
    assert len(lines_of(folder / "table.csv")) == 1
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "No model was tuned: all take the shared settings." in text
    assert "Set for all: model.embedding_dim=4" in text
    assert (folder / "timings.json").is_file()


def test_the_same_command_again_trains_nothing(compared, tiny_data):
    _, folder = compared
    cells = {path: path.stat().st_mtime_ns for path in folder.rglob("cell.json")}
    assert len(cells) == 2
    options = ["--models", "dfn_no_feedback", "--seeds", 2, "--budget", 0, "--no-timing", *SMALL]
    before = (folder / "timings.json").stat().st_mtime_ns
    result = run(tiny_data, folder.parent, *options)
    assert result.exit_code == 0, result.output
    assert "seed 0:" not in result.output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("cell.json")} == cells
    assert (folder / "timings.json").stat().st_mtime_ns == before


def test_other_settings_are_one_line_that_names_the_folder(compared, tiny_data):
    _, folder = compared
    options = ["--models", "dfn_no_feedback", "--seeds", 2, "--budget", 0, *SMALL]
    result = run(tiny_data, folder.parent, *options, "--set", "train.patience=2")
    assert failed(result, str(folder / "cells" / "dfn_no_feedback" / "seed-0"), "--output")
    assert result.stderr.count("\n") == 1


def test_a_sweep_writes_a_table_of_its_own(compared, tiny_data, tmp_path):
    _, folder = compared
    shutil.copytree(folder, tmp_path / "simulated")
    before = (tmp_path / "simulated" / "table.csv").read_bytes()
    options = ["--models", "dfn_no_feedback", "--seeds", 1, "--sweep", "model.dislike_weight=1,5"]
    result = run(tiny_data, tmp_path, *options, *SMALL)
    assert result.exit_code == 0, result.output
    assert "dfn_no_feedback, dislike_weight=5, seed 0: ctr_auc 0." in result.output
    assert len(lines_of(tmp_path / "simulated" / "table-sweep-dislike_weight.csv")) == 2
    assert (tmp_path / "simulated" / "table.csv").read_bytes() == before


def test_the_importance_of_inputs_is_measured_on_a_finished_model(compared, tiny_data, tmp_path):
    _, folder = compared
    shutil.copytree(folder, tmp_path / "simulated")
    result = run(tiny_data, tmp_path, "--importance", "dfn_no_feedback")
    assert result.exit_code == 0, result.output
    found = {
        line["group"]: line
        for line in lines_of(tmp_path / "simulated" / "importance-dfn_no_feedback.csv")
    }
    assert float(found["click"]["auc"]) == 0.0  # A model without histories.
    schema = tiny_data.schema()
    assert set(found) == {item.name for item in (*schema.features, *schema.histories)}
    assert "history" in result.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--models", "dfn,dnf"], "Unknown model 'dnf'"),
        (["--models", "dfn", "--set", "train.epoch=2"], "Did you mean 'epochs'"),
        (["--models", "dfn", "--set", "model.embeding_dim=4"], "Did you mean 'embedding_dim'"),
        (["--models", "dfn", "--sweep", "dislike_weight=1"], "expected section.key=value"),
        (["--models", "dfn", "--sweep", "train.epochs=1", "--drop-feedback"], "exclude each other"),
        (["--models", "fm", "--sweep", "train.seed=0,1"], "Use --seeds"),
        (["--models", "fm", "--sweep", "train.epochs=1,1"], "would both be kept"),
        (["--importance", "dfn"], "No finished 'dfn'"),
        (["--models", "dfn", "--config", "none.toml"], "No configuration at none.toml"),
    ],
)
def test_wrong_options_are_one_line(tiny_data, tmp_path, options, expected):
    result = run(tiny_data, tmp_path, *options)
    assert failed(result, expected)
    assert result.stderr.count("\n") == 1


def test_prepared_data_that_are_not_there_are_an_error(tmp_path):
    data = tmp_path / "mistyped"
    result = invoke(main, "--suite", "simulated", "--data", data, "--output", tmp_path / "runs")
    assert failed(result, str(data))
    assert not data.exists()
    assert result.stderr.count("\n") == 1


def test_notes_name_what_is_tuned(tiny_data, tmp_path):
    rows = model_rows(["fm", "dfn"])
    kept = ("optimizer.weight_decay=0.01",)
    study = Study(tmp_path, tiny_data.directory, overrides=kept, seeds=2, budget=8)
    notes = _notes(study, tiny_data, rows)
    assert notes[1:] == [
        "Tuned, as far as a model has them: optimizer.learning_rate, model.dropout; 8 trials a "
        "model, the first with the shared settings, judged by ctr_auc on validation.",
        "At most 5 epochs, patience 1, batches of 256 requests, 2 seeds.",
        "Set for all: optimizer.weight_decay=0.01.",
    ]
    kept = (*kept, "optimizer.learning_rate=0.1", "model.dropout=0.1")
    notes = _notes(dataclasses.replace(study, overrides=kept), tiny_data, rows)
    assert notes[1] == "No model was tuned: all take the shared settings."


def test_notes_leave_out_what_is_swept(tiny_data, tmp_path):
    kept = ("train.epochs=7", "data.batch_size=64")
    study = Study(tmp_path, tiny_data.directory, overrides=kept, seeds=1)
    rows = sweep_rows(["fm"], ["train.epochs=1,9", "train.patience=1,2"])
    assert _notes(study, tiny_data, rows)[2:] == [
        "Batches of 64 requests, 1 seed.",
        "Set for all: data.batch_size=64.",
    ]
    study = dataclasses.replace(study, overrides=('data.drop=["context_hour"]',))
    config = study.resolved(rows[0], {}, 0)
    rows = dropped_rows(["fm"], tiny_data.schema(), config)
    assert _notes(study, tiny_data, rows)[3] == 'Set for all: data.drop=["context_hour"].'


def test_an_unknown_suite_is_one_line(tmp_path):
    result = invoke(main, "--suite", "kuairand", "--output", tmp_path)
    assert failed(result, "Unknown suite 'kuairand'", "Did you mean 'kuairand-pure'")
