import io
import json

import pytest
from rich.console import Console

from pipelines import train, visualize
from pipelines.train import warn_of_eaten_groups
from tests.denoising.examples import counts
from tests.pipelines.conftest import invoke
from tests.pipelines.test_visualize import is_picture
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.sources.simulated_interactions import simulate_interactions

OPTIONS = ["model.embedding_dim=4", "data.batch_size=32", "train.epochs=2", "train.patience=5"]
OPTIONS += ["optimizer.learning_rate=0.05", "loss.name=tce", "loss.num_steps=1"]


@pytest.fixture(scope="module")
def interactions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interactions") / "data"
    return prepare_interactions(simulate_interactions(80, 80, 12, seed=1), folder)


def trained(interactions, run, *overrides):
    settings = [part for option in (*OPTIONS, *overrides) for part in ("--set", option)]
    arguments = ["--data", interactions.directory, "--model", "gmf", "--output", run]
    result = invoke(train.main, *arguments, *settings)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def truncated(interactions, tmp_path_factory):
    """What training with the largest drop rates printed, and the folder of the run."""
    run = tmp_path_factory.mktemp("truncated") / "run"
    options = ["loss.max_rate=1.0", "loss.max_positive_fraction=0.75"]
    return trained(interactions, run, *options), run


def printed(groups, epoch=0):
    console = Console(file=io.StringIO(), width=100)
    warn_of_eaten_groups(epoch, groups, console)
    return console.file.getvalue()


def test_a_group_that_truncation_eats_is_named_with_what_to_do():
    shown = printed({"users": counts([60, 10, 10, 10]), "items": counts([30, 22, 20, 18])}, epoch=2)
    assert shown.count("\n") == 1
    assert shown.startswith(
        "epoch 3: truncation drops 60% of the clicks of the least active users (up to 3 clicks "
        "each), 22% of all clicks."
    )
    for remedy in ("loss.max_rate", "loss.drop_base=positives", "loss.max_positive_fraction"):
        assert remedy in shown


def test_nothing_is_said_where_all_lose_alike():
    assert printed({"users": counts([22, 25, 20, 23])}) == ""


def test_training_warns_at_the_end_of_each_epoch_where_a_group_is_eaten(truncated):
    lines = truncated[0].output.splitlines()
    warned = [line for line in lines if "truncation drops" in line]
    assert {line.split(":")[0] for line in warned} == {"epoch 1", "epoch 2"}


def test_training_that_drops_little_does_not_warn(interactions, tmp_path):
    result = trained(interactions, tmp_path / "run", "loss.max_rate=0.02", "train.epochs=1")
    assert "truncation drops" not in result.output


def test_pictures_of_a_truncated_run_are_written_and_others_say_why_not(truncated):
    _, run = truncated
    result = invoke(visualize.main, "--run", run)
    assert result.exit_code == 0, result.output
    drawn = sorted(path.name for path in (run / "pictures").iterdir())
    assert drawn == ["denoising_drops.png", "denoising_groups.png", "denoising_losses.png"]
    assert all(is_picture(run / "pictures" / name) for name in drawn)
    for name in ("purification", "long_term", "over_training"):
        assert f"{name}.png skipped: the model has no interests by feedback" in result.output


def test_a_run_without_diagnostics_is_skipped_and_says_what_would_keep_them(truncated, tmp_path):
    _, run = truncated
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.name != "denoising.npz" and path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / "vocabularies").symlink_to(run / "vocabularies")
    result = invoke(visualize.main, "--run", copy)
    assert result.exit_code == 0, result.output
    assert "denoising_losses.png skipped: the run kept no diagnostics" in result.output
    assert "train.diagnostics_steps above 0" in result.output


def test_a_grid_of_losses_is_drawn(tmp_path):
    losses = [{"name": "ce"}, {"name": "rce", "beta": 0.5}]
    losses += [{"name": "tce", "max_rate": 0.1, "num_steps": n} for n in (100, 1000)]
    for i, loss in enumerate(losses):
        folder = tmp_path / f"run-{i}"
        folder.mkdir()
        described = {"config": {"model": {"name": "gmf"}, "loss": loss}, "data_fingerprint": "x"}
        (folder / "run.json").write_text(json.dumps(described))
        report = {"split": "test", "metrics": {"recall_20": {"value": 0.1 + 0.01 * i}}}
        (folder / "evaluation.json").write_text(json.dumps(report))
    result = invoke(visualize.main, "--grid", tmp_path)
    assert result.exit_code == 0, result.output
    assert "sensitivity.png skipped: the grid holds no finished" in result.output
    assert is_picture(tmp_path / "pictures" / "denoising_sensitivity.png")
