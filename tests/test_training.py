import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from tests.data.logs import prepared_simulation
from tfrec_feedback.config import load_config
from tfrec_feedback.data.dataset import num_batches
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.data.tfrecord import CorruptRecordError
from tfrec_feedback.interests import load_snapshots
from tfrec_feedback.runs import RunError, load_run
from tfrec_feedback.training import NonFiniteLossError, make_optimizer, train

# The road is the same for every model; this one is built fastest.
SMALL = [
    "model.name=dfn_no_feedback",
    "model.embedding_dim=4",
    "data.batch_size=16",
    "train.epochs=2",
]

WITH_MEMORY = [
    "model.name=dumn_no_tl",
    "model.histories=['click', 'like']",
    "model.user_memory={memory_size=8, word_size=4, controller_units=8}",
    "model.deep_units=[8]",
    "model.dropout=0.2",
    "data.batch_size=64",
    "train.snapshots=3",
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return prepared_simulation(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def few_shapes(tmp_path_factory):
    """A log whose batches are nearly all of the same few shapes: each one is compiled."""
    return prepared_simulation(tmp_path_factory.mktemp("few_shapes"), history_length=2)


def config(*overrides):
    return load_config(overrides=[*SMALL, *overrides])


class StopAt(tf.keras.callbacks.Callback):
    """Interrupts training after some batches, as Ctrl-C does."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_run_keeps_the_best_epoch_and_says_everything_about_itself(manifest, tmp_path):
    run = tmp_path / "run"
    result = train(config("train.patience=2", "data.drop=['user_id']"), manifest, run)
    described = json.loads((run / "run.json").read_text())
    assert described["finished"]
    assert described["data_fingerprint"] == manifest.fingerprint
    assert described["versions"]["tensorflow"] == tf.__version__
    assert described["history"] == result.history
    values = [epoch["ctr_auc"] for epoch in result.history]
    assert result.best_epoch == int(np.argmax(values))
    assert load_config(run / "config.toml") == config("train.patience=2", "data.drop=['user_id']")
    assert list((run / "tensorboard").iterdir())
    assert not (run / "checkpoints").exists()
    model, _ = load_run(run)
    assert "user_id" not in [feature.name for feature in model.schema.context]
    for ours, theirs in zip(model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


RESUME = """
import hashlib, json, sys
from pathlib import Path
from tests.test_training import WITH_MEMORY, StopAt, config
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.training import train

manifest, run, stop = load_manifest(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
settings = config(
    *WITH_MEMORY, "model.name=dumn", "model.histories=['click', 'unclick']",
    "data.batch_size=16", "train.deterministic=true", "train.checkpoint_steps=3",
    "model.context_dropout=0.2", "train.patience=5", "train.snapshots=0",
)
try:
    result = train(settings, manifest, run, callbacks=[StopAt(stop)] if stop else [])
except KeyboardInterrupt:
    sys.exit(3)
digests = {w.name: hashlib.sha256(w.numpy().tobytes()).hexdigest() for w in result.model.weights}
print(json.dumps([result.history, digests]))
"""


def in_new_process(*arguments):
    command = [sys.executable, "-c", textwrap.dedent(RESUME), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(manifest, tmp_path):
    whole = in_new_process(manifest.directory, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr[-2000:]
    # The second interruption falls into the second epoch, between two checkpoints.
    for stop in (5, 17):
        stopped = in_new_process(manifest.directory, tmp_path / "parts", stop)
        assert stopped.returncode == 3, stopped.stderr[-2000:]
    resumed = in_new_process(manifest.directory, tmp_path / "parts", 0)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert json.loads(resumed.stdout) == json.loads(whole.stdout)
    weights = json.loads(whole.stdout)[1]
    assert len([name for name in weights if name.endswith("memory:0")]) == 2


def test_compiled_steps_train_as_others_and_models_without_them_say_so(few_shapes, tmp_path):
    settings = [
        "model.name=din",
        "model.deep_units=[8]",
        "model.histories=['click']",
        "train.epochs=1",
        "train.diagnostics_steps=0",
    ]
    plain, compiled = (
        train(config(*settings, f"train.compiled={flag}"), few_shapes, tmp_path / flag)
        for flag in ("false", "true")
    )
    assert plain.history[0]["loss"] == pytest.approx(compiled.history[0]["loss"], rel=1e-4)
    with pytest.raises(ValueError, match="models with a compiled step, as din; 'dfn_no_feedback'"):
        train(config("train.compiled=true"), few_shapes, tmp_path / "dfn")


def test_steps_at_once_train_as_single_ones_and_are_interrupted_between(few_shapes, tmp_path):
    settings = [
        "model.name=din",
        "model.deep_units=[8]",
        "model.histories=['click']",
        "train.epochs=1",
        "train.diagnostics_steps=0",
        "train.compiled=true",
        "train.checkpoint_steps=3",
    ]
    single = train(config(*settings), few_shapes, tmp_path / "single")
    several = [*settings, "train.steps_at_once=2"]
    with pytest.raises(KeyboardInterrupt):
        train(config(*several), few_shapes, tmp_path / "several", [StopAt(3)])
    resumed = train(config(*several), few_shapes, tmp_path / "several")
    assert len(resumed.history) == len(single.history)
    for one, other in zip(resumed.history, single.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_steps_at_once_are_compiled_ones(manifest, tmp_path):
    for settings in (["train.steps_at_once=2"], ["train.compiled=true", "model.dropout=0.5"]):
        with pytest.raises(ValueError, match="is for steps that are compiled: set train.compiled"):
            options = ["model.name=din", "train.steps_at_once=2", *settings]
            train(config(*options), manifest, tmp_path / str(len(settings)))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(manifest, tmp_path):
    with pytest.raises(
        NonFiniteLossError, match=r"epoch 1, batch 2 \(16 requests: .*learning_rate"
    ):
        train(config("optimizer.learning_rate=1e38"), manifest, tmp_path / "run")


def test_a_folder_with_another_run_is_refused(manifest, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config(), manifest, run, callbacks=[StopAt(1)])
    with pytest.raises(RunError, match="not finished"):
        load_run(run)
    with pytest.raises(RunError, match="interrupted run with another config"):
        train(config("train.seed=1"), manifest, run)
    train(config(), manifest, run)
    with pytest.raises(RunError, match="finished run. Choose another --output"):
        train(config(), manifest, run)
    with pytest.raises(RunError, match="No run in"):
        load_run(tmp_path / "absent")


def test_early_stopping_waits_for_patience(manifest, tmp_path):
    settings = config("train.epochs=6", "train.patience=1", "optimizer.learning_rate=1e-12")
    result = train(settings, manifest, tmp_path / "run")
    assert len(result.history) == result.best_epoch + 2 < 6


def test_training_that_ends_early_is_shown_to_its_end(manifest, tmp_path):
    early = ["train.epochs=9", "train.patience=1", "optimizer.learning_rate=1e-12"]
    result = train(config(*WITH_MEMORY, *early), manifest, tmp_path / "run")
    assert len(result.history) < 9
    last = num_batches(manifest, "train", 64) * len(result.history)
    assert list(load_snapshots(tmp_path / "run"))[-1] == last


def damaged(manifest, tmp_path):
    copy = tmp_path / "damaged"
    subprocess.run(["cp", "-r", str(manifest.directory), str(copy)], check=True)
    shard = load_manifest(copy).shard_paths("train")[0]
    data = bytearray(shard.read_bytes())
    data[2000] ^= 0xFF
    shard.write_bytes(data)
    return load_manifest(copy), shard


def test_a_damaged_record_is_named_or_skipped_and_counted(manifest, tmp_path):
    broken, shard = damaged(manifest, tmp_path)
    with pytest.raises(CorruptRecordError, match=rf"{shard.name} at byte \d+"):
        train(config(), broken, tmp_path / "run")
    result = train(config("data.skip_corrupt=true"), broken, tmp_path / "skipping")
    assert result.skipped_records == 1


def test_an_epoch_of_a_model_of_dislikes_is_not_chosen_by_clicks(manifest, tmp_path):
    settings = config("model.dislike_protocol=dislike_label")
    with pytest.raises(ValueError, match="Set train.monitor='dislike_auc'"):
        train(settings, manifest, tmp_path / "run")


@pytest.mark.parametrize("name", ["lazy_adam", "adam", "adagrad"])
def test_every_optimizer_of_the_configuration_can_be_made(name):
    settings = config(f"optimizer.name={name}", "optimizer.clip_norm=1.0")
    optimizer = make_optimizer(settings.optimizer)
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert optimizer.global_clipnorm == 1.0


@pytest.fixture(scope="module")
def remembering(manifest, tmp_path_factory):
    """A finished run of a model with a memory, and its folder."""
    run = tmp_path_factory.mktemp("remembering") / "run"
    return train(config(*WITH_MEMORY), manifest, run), run


def steps_of(manifest):
    """First, middle and last step of two epochs."""
    batches = num_batches(manifest, "train", 64)
    return [0, batches, 2 * batches]


def test_the_health_of_the_memories_is_kept_with_the_run(remembering, manifest):
    result, run = remembering
    described = json.loads((run / "run.json").read_text())
    assert described["memory_health"] == result.memory_health
    assert sorted(result.memory_health) == ["click", "like"]
    slots = result.model.user_memory.memory("like").memory.numpy()
    units = slots / np.linalg.norm(slots, axis=1, keepdims=True)
    pairs = (units @ units.T)[~np.eye(8, dtype=bool)]
    assert result.memory_health["like"]["slot_cosine"] == pytest.approx(pairs.mean(), abs=1e-5)


def test_snapshots_show_training_from_the_first_step_to_the_last(remembering, manifest):
    _, run = remembering
    snapshots = load_snapshots(run)
    assert list(snapshots) == steps_of(manifest)
    first, *_, last = snapshots.values()
    assert first.users.tolist() == last.users.tolist()
    assert len(first.users) == manifest.splits["validation"].requests
    assert np.abs(first.read["click"] - last.read["click"]).max() > 1e-3


def test_an_interrupted_run_writes_the_snapshots_of_an_uninterrupted_one(
    remembering, manifest, tmp_path
):
    _, whole = remembering
    # Between the second snapshot and the next checkpoint.
    stop = StopAt(steps_of(manifest)[1] + 1)
    settings = config(*WITH_MEMORY)
    with pytest.raises(KeyboardInterrupt):
        train(settings, manifest, tmp_path / "parts", callbacks=[stop])
    train(settings, manifest, tmp_path / "parts")
    expected, found = load_snapshots(whole), load_snapshots(tmp_path / "parts")
    assert list(found) == list(expected)
    for step, interests in expected.items():
        np.testing.assert_allclose(found[step].read["like"], interests.read["like"], atol=1e-4)
    names = sorted(path.name for path in (tmp_path / "parts" / "interests").iterdir())
    assert names == [f"step-{step:08d}.npz" for step in expected]


def test_taking_snapshots_does_not_change_training(remembering, manifest, tmp_path):
    watched, _ = remembering
    alone = train(config(*WITH_MEMORY, "train.snapshots=0"), manifest, tmp_path / "run")
    assert not (tmp_path / "run" / "interests").exists()
    for ours, theirs in zip(alone.model.get_weights(), watched.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_model_without_memory_has_neither_health_nor_snapshots(manifest, tmp_path):
    result = train(config("train.epochs=1"), manifest, tmp_path / "run")
    assert result.memory_health == {}
    assert not (tmp_path / "run" / "interests").exists()
