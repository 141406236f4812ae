import json

import matplotlib.image
import pytest

from pipelines.visualize import grid_values, main
from tests.pipelines.conftest import failed, invoke
from tfrec_feedback.config import load_config
from tfrec_feedback.training import train

TINY_DUMN = [
    "model.name=dumn_no_tl",
    "model.histories=['unclick', 'like']",
    "model.user_memory={memory_size=8, word_size=4, controller_units=8}",
    "model.embedding_dim=4",
    "model.deep_units=[8]",
    "data.batch_size=64",
    "train.epochs=1",
    "train.snapshots=2",
]


@pytest.fixture(scope="module")
def remembering(tiny_data, tmp_path_factory):
    """Folder of a run of a model that purifies and remembers."""
    run = tmp_path_factory.mktemp("remembering") / "run"
    overrides = [f"data.directory='{tiny_data.directory}'", *TINY_DUMN]
    train(load_config(overrides=overrides), tiny_data, run)
    return run


def evaluated(folder, auc, model, health, split="test"):
    """Writes what an evaluated run's folder holds of sizes and results."""
    folder.mkdir(parents=True)
    described = {"config": {"model": model}, "memory_health": health, "data_fingerprint": "x"}
    (folder / "run.json").write_text(json.dumps(described))
    report = {"split": split, "tasks": {"ctr": {"auc": {"value": auc}}}}
    (folder / "evaluation.json").write_text(json.dumps(report))


@pytest.fixture
def grid(tmp_path):
    folder = tmp_path / "grid"
    small = {"name": "dumn", "user_memory": {"memory_size": 16, "word_size": 8}}
    evaluated(folder / "a-0", 0.5, small, {"click": {}})
    evaluated(folder / "a-1", 0.625, small, {"click": {}})
    evaluated(folder / "b", 0.75, {"name": "dumn"}, {"click": {}})
    evaluated(folder / "without", 0.9, {"name": "dfn"}, {})
    evaluated(folder / "elsewhere", 0.9, small, {"click": {}}, split="validation")
    return folder


def is_picture(path):
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 250
    colours = {tuple(pixel) for pixel in pixels[::3, ::3].reshape(-1, pixels.shape[2]).round(1)}
    return len(colours) > 10


def test_every_picture_of_a_run_is_drawn(remembering):
    result = invoke(main, "--run", remembering)
    assert result.exit_code == 0, result.output
    for name in ("purification", "long_term", "over_training"):
        path = remembering / "pictures" / f"{name}.png"
        assert f"Written to {path}" in result.output
        assert is_picture(path)
    assert "skipped" not in result.output


def test_what_cannot_be_drawn_is_skipped_and_says_why(trained, grid, tmp_path):
    _, run = trained
    result = invoke(main, "--run", run, "--grid", grid, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "purification.png skipped: the model does not purify" in result.output
    assert "long_term.png skipped: the model has no memory." in result.output
    assert "over_training.png skipped: the run has no snapshots" in result.output
    assert "denoising_sensitivity.png skipped: the grid holds no evaluated run" in result.output
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    # The simulated log says which clicks were mistakes.
    assert written == ["denoising_losses.png", "sensitivity.png"]
    assert is_picture(tmp_path / "out" / "sensitivity.png")


def test_a_grid_is_read_by_size_and_needs_no_run(grid):
    # The paper's sizes where a run does not say others; models without memory are left out.
    assert grid_values(grid) == {(16, 8): [0.5, 0.625], (256, 64): [0.75]}
    result = invoke(main, "--grid", grid)
    assert result.exit_code == 0, result.output
    assert (grid / "pictures" / "sensitivity.png").is_file()


def test_runs_of_several_models_are_not_averaged(grid):
    evaluated(grid / "other", 0.9, {"name": "dumn_rs"}, {"click": {}})
    assert failed(invoke(main, "--grid", grid), "several models or data", "'dumn', 'dumn_rs'")


def test_an_empty_grid_is_skipped(tmp_path):
    result = invoke(main, "--grid", tmp_path)
    assert result.exit_code == 0, result.output
    assert "sensitivity.png skipped: the grid holds no finished and evaluated run" in result.output


def test_wrong_folders_are_one_line(trained, tmp_path):
    missing = tmp_path / "none"
    assert failed(invoke(main), "Nothing to draw: give --run, --grid")
    assert failed(invoke(main, "--run", missing), f"No run in {missing}")
    assert failed(invoke(main, "--run", trained[1], "--data", missing), "No manifest.json")
    assert failed(invoke(main, "--grid", missing), f"No folder {missing}", "benchmarks.sensitivity")
