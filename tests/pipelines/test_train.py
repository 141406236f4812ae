import io
import json
import tomllib
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipelines.train import _print_memory_health, main
from tests.pipelines.conftest import CHEAP_MODEL, failed, invoke
from tfrec_feedback.feeds import RequestFeed


def test_a_run_is_trained_and_its_folder_named(trained):
    result, run = trained
    assert result.exit_code == 0, result.output
    assert f"The run is in {run}" in result.output
    assert "Best epoch 1 by ctr_auc 0." in result.output
    described = json.loads((run / "run.json").read_text())
    assert described["finished"]
    settings = tomllib.loads((run / "config.toml").read_text())
    assert settings["model"] == {
        "name": "dfn_no_feedback",
        "embedding_dim": 4,
        "deep_units": [8],
    }
    assert settings["train"]["epochs"] == 1


def test_a_configuration_file_is_read_and_overridden(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[train]\nepochs = 0\n")
    result = invoke(main, "--config", path)
    assert failed(result, "train.epochs", "greater than or equal to 1", str(path))
    result = invoke(main, "--config", path, "--set", "train.epochs=1", "--data", tmp_path / "none")
    assert failed(result, "none")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "train.epoch=2"], "Did you mean 'epochs'"),
        (["--set", "epochs=2"], "expected section.key=value"),
        (["--config", "none.toml"], "No configuration at none.toml"),
        (["--model", "dnf"], "Unknown model 'dnf'"),
        (["--set", "model.embeding_dim=4"], "Did you mean 'embedding_dim'"),
    ],
)
def test_wrong_options_are_one_line(tiny_data, tmp_path, options, expected):
    result = invoke(main, "--data", tiny_data.directory, "--output", tmp_path / "run", *options)
    assert failed(result, expected)
    assert result.stderr.count("\n") == 1


def test_missing_data_is_one_line(tmp_path):
    result = invoke(main, "--data", tmp_path / "none", "--output", tmp_path / "run")
    assert failed(result, "No manifest.json in", "pipelines.prepare")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_trained_again(trained, tiny_data):
    _, run = trained
    result = invoke(main, "--data", tiny_data.directory, "--output", run, *CHEAP_MODEL)
    assert failed(result, "holds a finished run", "--output")


def test_a_run_that_was_stopped_in_validation_is_finished(tiny_data, tmp_path, monkeypatch):
    options = ["--data", tiny_data.directory, "--output", tmp_path / "run", *CHEAP_MODEL]
    options += ["--set", "train.checkpoint_steps=1", "--set", "data.batch_size=64"]

    def fail(feed):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RequestFeed, "validate", fail)
        assert failed(invoke(main, *options), "No space left on device")
    result = invoke(main, *options)
    assert result.exit_code == 0, result.output
    assert "epoch 1: loss 0." in result.output
    assert "Best epoch 1 by ctr_auc 0." in result.output


def test_data_are_no_place_for_a_run(data_copy):
    result = invoke(main, "--data", data_copy, "--output", data_copy, *CHEAP_MODEL)
    assert failed(result, "holds prepared data", "Choose another --output")


def test_a_refused_setting_can_be_corrected(tiny_data, tmp_path):
    options = ["--data", tiny_data.directory, "--output", tmp_path / "run", *CHEAP_MODEL]
    assert failed(invoke(main, *options, "--set", "model.nope=1"), "nope")
    # The folder is free for another run, here one that is refused for its optimiser.
    corrected = invoke(main, *options, "--set", "optimizer.initial_accumulator=3")
    assert failed(corrected, "initial_accumulator is for adagrad alone")


def test_a_damaged_shard_is_named_with_the_offset(damaged, tmp_path):
    folder, files = damaged
    result = invoke(main, "--data", folder, "--output", tmp_path / "run", *CHEAP_MODEL)
    assert failed(result, f"Corrupt TFRecord {files['train']} at byte 0")


def test_damaged_records_are_skipped_and_counted_when_asked(damaged, tmp_path):
    folder, _ = damaged
    options = ["--data", folder, "--output", tmp_path / "run", "--skip-corrupt", *CHEAP_MODEL]
    result = invoke(main, *options)
    assert result.exit_code == 0, result.output
    # One in the train split, one in the validation split.
    assert "2 damaged records skipped" in result.output


def test_a_folder_called_like_a_date_is_a_folder(data_copy):
    assert data_copy.name == "2024-01-01"
    result = invoke(main, "--data", data_copy, "--model", "none")
    assert failed(result, "Unknown model 'none'")


def printed_health(reads_alike, strength):
    """What is said of one memory whose reads are that much alike."""
    health = {"slot_cosine": 0.5, "read_cosine": reads_alike}
    health |= {"read_entropy": 0.25, "slots_in_use": 0.125, "requests": 1024.0}
    network = SimpleNamespace(memories=[SimpleNamespace(key_strength=strength)])
    model = SimpleNamespace(user_memory=network)
    console = Console(file=io.StringIO(), width=100)
    result = SimpleNamespace(memory_health={"click": health}, model=model)
    _print_memory_health(result, console)
    return console.file.getvalue()


def test_the_health_of_a_memory_is_a_table():
    shown = printed_health(0.75, 1.0)
    assert "memory health" in shown
    row = next(line for line in shown.splitlines() if "click" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "click",
        "0.5000",
        "0.750000",
        "0.2500",
        "12.5%",
        "1,024",
    ]
    assert "collapsed" not in shown


def test_a_collapsed_memory_is_pointed_out_with_what_to_do():
    shown = printed_health(0.999999, 1.0)
    assert "The memory of click has collapsed to one vector: every user reads the same." in shown
    assert "key strength of 1.0 does this" in shown
    assert "--model dumn_learned_strength" in shown
    assert "--set model.user_memory.key_strength=learned" in shown
    learned = printed_health(0.999999, "learned")
    assert "has collapsed" in learned
    assert "1.0 does this" not in learned
