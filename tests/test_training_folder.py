"""What is in a run's folder when training is refused, interrupted, or told to use another's."""

import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.data.ratings import write_ratings
from tests.test_training import StopAt
from tfrec_feedback import training
from tfrec_feedback.config import load_config
from tfrec_feedback.data.dataset import num_batches
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.feeds import RequestFeed
from tfrec_feedback.runs import RunError, describe_run
from tfrec_feedback.training import train

SMALL = ["model.name=dfn_no_feedback", "model.embedding_dim=4", "model.deep_units=[8]"]
SMALL += ["data.batch_size=64", "train.epochs=2", "train.patience=5", "train.diagnostics_steps=0"]


def config(*overrides):
    return load_config(overrides=[*SMALL, *overrides])


def interactions(folder):
    source = load_interaction_source("adt-ratings", write_ratings(folder / "log", 12))
    return prepare_interactions(source, folder / "data")


class StopBeforeValidation(tf.keras.callbacks.Callback):
    """Interrupts after the last batch of an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


class Begun(tf.keras.callbacks.Callback):
    """Remembers the epochs that were begun."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)


@pytest.mark.parametrize("model", ["dfn_no_feedback", "gmf"])
def test_a_run_that_was_stopped_in_validation_ends_as_an_uninterrupted_one(
    model, tiny_data, tmp_path
):
    options = ["train.epochs=2", "train.deterministic=true", "train.checkpoint_steps=1"]
    if model == "gmf":
        manifest = interactions(tmp_path)
        options += ["model.name=gmf", "model.embedding_dim=4", "data.batch_size=64"]
    else:
        manifest = tiny_data
        options += SMALL
    settings = load_config(overrides=options)
    whole = train(settings, manifest, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, manifest, tmp_path / "parts", [StopBeforeValidation()])
    begun = Begun()
    resumed = train(settings, manifest, tmp_path / "parts", [begun])
    assert begun.epochs == [0, 1]
    np.testing.assert_equal(resumed.history, whole.history)  # NaN equals NaN
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Weights(tf.keras.callbacks.Callback):
    """Keeps the weights after the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.kept = self.model.get_weights()


def scores(monkeypatch, *values, **others):
    """Makes validation find these values of `ctr_auc`, one after another."""
    left = list(values)
    monkeypatch.setattr(RequestFeed, "validate", lambda feed: {"ctr_auc": left.pop(0), **others})


@pytest.mark.parametrize("earlier_version", [False, True])
def test_the_weights_are_those_of_the_epoch_that_is_called_the_best(
    tiny_data, tmp_path, monkeypatch, earlier_version
):
    scores(monkeypatch, 0.6, 0.7, 0.5)
    save, after_first = training._Trainer.save, Weights()

    def killed(trainer, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        save(trainer, epoch, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training._Trainer, "save", killed)
        train(config(), tiny_data, tmp_path / "run", [after_first])
    if earlier_version:
        state = json.loads((tmp_path / "run" / "state.json").read_text())
        (tmp_path / "run" / state.pop("best_weights")).rename(tmp_path / "run/best.weights.h5")
        (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    # The second pass through the second epoch finds less than the one that was killed.
    result = train(config(), tiny_data, tmp_path / "run")
    assert (result.best_epoch, [epoch["ctr_auc"] for epoch in result.history]) == (0, [0.6, 0.5])
    for kept, found in zip(after_first.kept, result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, found)
    assert not list((tmp_path / "run").glob("best*"))


def test_only_the_best_weights_are_kept_while_a_run_goes_on(tiny_data, tmp_path, monkeypatch):
    scores(monkeypatch, 0.5, 0.6, 0.4)

    kept = []

    class Look(tf.keras.callbacks.Callback):
        def on_validation(self, epoch, results):
            kept.append([path.name for path in (tmp_path / "run").glob("best*")])

    train(config("train.epochs=3"), tiny_data, tmp_path / "run", [Look()])
    assert kept == [[f"best-{epoch}.weights.h5"] for epoch in (0, 1, 1)]


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_what_is_undefined_is_null_on_the_disk_and_nan_in_memory(tiny_data, tmp_path, monkeypatch):
    scores(monkeypatch, 0.6, 0.7, dislike_gauc=math.nan)
    run, batches = tmp_path / "run", num_batches(tiny_data, "train", 64)

    def written(name):
        return json.loads((run / name).read_text(), parse_constant=no_constant)["history"]

    with pytest.raises(KeyboardInterrupt):
        train(config(), tiny_data, run, [StopAt(batches + 1)])
    assert written("state.json")[0]["dislike_gauc"] is None
    result = train(config(), tiny_data, run)
    assert [math.isnan(epoch["dislike_gauc"]) for epoch in result.history] == [True, True]
    assert [epoch["dislike_gauc"] for epoch in written("run.json")] == [None, None]
    np.testing.assert_equal(describe_run(run)["history"], result.history)  # NaN equals NaN


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.nope=1"], "nope"),
        (["data.num_negatives=7"], "num_negatives"),
        (["train.compiled=true"], "compiled step"),
        (["optimizer.name=adam", "optimizer.row_scale=3"], "row_scale"),
        (["train.monitor=recall_20"], "not measured"),
    ],
)
def test_settings_that_are_refused_leave_nothing_behind(settings, message, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(config(*settings), tiny_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_prepared_data_are_not_written_over(tiny_data, tmp_path):
    copy = shutil.copytree(tiny_data.directory, tmp_path / "data")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="holds prepared data.*Choose another --output"):
        train(config("data.drop=['user_id']"), tiny_data, copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
