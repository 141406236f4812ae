import dataclasses
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest

from tfrec_feedback import training
from tfrec_feedback.benchmark import running
from tfrec_feedback.benchmark.cells import load_cell
from tfrec_feedback.benchmark.measured import measure
from tfrec_feedback.benchmark.rows import model_rows, sweep_rows
from tfrec_feedback.benchmark.running import run_study
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.evaluation import predict
from tfrec_feedback.runs import load_run

ROWS = model_rows(["dfn_no_feedback"])


def silent(line):
    """Workers can be told to call this: it is a function of a module."""


def times(study):
    return {path: path.stat().st_mtime_ns for path in study.folder.rglob("*.json")}


def test_a_lost_cell_alone_is_made_again_with_the_same_numbers(small_study, tiny_data):
    lines = []
    run_study(small_study, ROWS, say=lines.append)
    assert [line.split(":")[0] for line in lines] == [
        "dfn_no_feedback, trial 0",
        "dfn_no_feedback, trial 1",
        "dfn_no_feedback, seed 0",
        "dfn_no_feedback, seed 1",
    ]
    folders = [small_study.cell_folder("dfn_no_feedback", seed) for seed in (0, 1)]
    cells = [load_cell(folder) for folder in folders]
    first, second = (cell.predictions.logits["ctr"] for cell in cells)
    assert np.abs(first - second).max() > 1e-4
    _check_cell(cells[1], folders[1], tiny_data)

    shutil.rmtree(folders[1])
    before = times(small_study)
    # An own process: another machine's worker would give these numbers as well.
    run_study(small_study, ROWS, workers=2, say=silent)
    assert {path: time for path, time in times(small_study).items() if path in before} == before
    again = load_cell(folders[1])
    assert again.settings == cells[1].settings
    np.testing.assert_allclose(again.predictions.logits["ctr"], second, atol=1e-6)


def _check_cell(cell, folder, manifest):
    """A cell says what its run, which is kept beside it, would say."""
    model, description = load_run(folder / "run")
    dataset = request_dataset(manifest, "test", 64, encoder=model.encoder, metadata=True)
    found = predict(model, dataset)
    np.testing.assert_allclose(cell.predictions.logits["ctr"], found.logits["ctr"], atol=1e-6)
    np.testing.assert_array_equal(cell.predictions.labels["dislike"], found.labels["dislike"])
    assert len(cell.predictions.users) == manifest.split("test").candidates
    np.testing.assert_equal(cell.history, description["history"])  # NaN equals NaN
    assert cell.best_epoch == 0
    assert cell.seed == 1
    assert cell.seconds > 0
    assert cell.parameters == sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    tuned = description["config"]["optimizer"]["learning_rate"]
    assert cell.settings.get("optimizer.learning_rate", 1e-3) == tuned


def test_an_interrupted_cell_is_not_there_and_what_it_left_is_removed(
    small_study, tiny_data, monkeypatch
):
    folder = small_study.cell_folder("dfn_no_feedback", 0)
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "run.json").write_text("half of it")

    def crash(config, manifest, run):
        assert not run.exists()
        raise OSError("No space left on device")

    monkeypatch.setattr(training, "train", crash)
    config = small_study.resolved(ROWS[0], {}, 0)
    with pytest.raises(OSError, match="No space left"):
        running.make_cell(config, tiny_data, folder, "dfn_no_feedback", {}, {}, 64)
    assert not small_study.is_finished(ROWS[0])


def test_rows_of_any_batch_size_are_scored_in_one_order(
    small_study, tiny_data, tiny_run, monkeypatch
):
    model, _ = load_run(tiny_run)
    result = training.TrainingResult(model, [{"ctr_auc": 0.5}], 0, "ctr_auc", 0, {})
    monkeypatch.setattr(training, "train", lambda config, manifest, run: result)
    study = dataclasses.replace(small_study, seeds=1)
    rows = sweep_rows(["dfn_click"], ["data.batch_size=8,64"])
    run_study(study, rows)
    cells = [load_cell(study.cell_folder(row.label, 0)) for row in rows]
    assert list(measure(cells)) == [row.label for row in rows]
    dataset = request_dataset(tiny_data, "test", 64, encoder=model.encoder, metadata=True)
    expected = predict(model, dataset).users
    for cell in cells:
        np.testing.assert_array_equal(cell.predictions.users, expected)


def test_the_environment_of_workers_is_set_for_them_alone(monkeypatch):
    monkeypatch.setenv("FEEDBACK_ONE", "by the user")
    monkeypatch.delenv("FEEDBACK_TWO", raising=False)
    with running._environment({"FEEDBACK_ONE": "1", "FEEDBACK_TWO": "2"}):
        assert os.environ["FEEDBACK_ONE"] == "by the user"
        assert os.environ["FEEDBACK_TWO"] == "2"
    assert os.environ["FEEDBACK_ONE"] == "by the user"
    assert "FEEDBACK_TWO" not in os.environ


def wait_long(path):
    """A worker that has a worker: what a benchmark and its training look like to the system."""
    child = multiprocessing.get_context("spawn").Process(target=work_long, args=(path,))
    child.start()
    child.join()


def work_long(path):
    running.end_with_parent()
    path.write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)


def test_workers_end_with_a_benchmark_that_is_killed(tmp_path):
    path = tmp_path / "worker"
    benchmark = multiprocessing.get_context("spawn").Process(target=wait_long, args=(path,))
    benchmark.start()
    wait_until(lambda: path.is_file() and path.read_text(encoding="utf-8"))
    worker = int(path.read_text(encoding="utf-8"))
    assert is_alive(worker)
    os.kill(benchmark.pid, signal.SIGKILL)
    benchmark.join()
    wait_until(lambda: not is_alive(worker))


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
