import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfrec_feedback.config import load_config
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.sources.simulated_interactions import simulate_interactions
from tfrec_feedback.denoising.record import RECORD_FILE, DenoisingRecord
from tfrec_feedback.denoising.recorder import DenoisingRecorder
from tfrec_feedback.models import build_model
from tfrec_feedback.training import train

OPTIONS = [
    "model.name=gmf",
    "model.embedding_dim=4",
    "data.batch_size=32",
    "train.epochs=2",
    "train.patience=5",
    "train.diagnostics_steps=7",
    "optimizer.learning_rate=0.02",
]
TRUNCATED = ["loss.name=tce", "loss.max_rate=0.2", "loss.num_steps=20"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Interactions in 17 batches of an epoch; a quarter of them false."""
    source = simulate_interactions(
        60, 80, interactions_per_user=10, false_positive_share=0.25, seed=1
    )
    return prepare_interactions(source, tmp_path_factory.mktemp("interactions") / "data")


def trained(manifest, run, *overrides, callbacks=()):
    given = [f"data.directory='{manifest.directory}'", *OPTIONS, *overrides]
    train(load_config(overrides=given), manifest, run, callbacks=callbacks)
    return DenoisingRecord.load(run)


class Diagnostics(tf.keras.callbacks.Callback):
    """Keeps what training says of groups, epoch by epoch."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_diagnostics(self, epoch, groups):
        self.told.append((epoch, groups))


def test_every_click_of_a_run_is_in_one_window_and_in_one_group(manifest, tmp_path):
    callback = Diagnostics()
    record = trained(manifest, tmp_path / "run", *TRUNCATED, callbacks=[callback])
    clicks, false = (manifest.split("train").feedback[k] for k in ("click", "false_positive"))
    steps = -(-clicks // 32) * 2
    assert record.loss == "tce"
    assert record.series["step"][-1] == steps
    assert (np.diff(record.series["step"], prepend=0) == record.series["batches"]).all()
    totals = {name: values.sum() for name, values in record.series.items()}
    assert (totals["positives"], totals["known"]) == (2 * clicks, 2 * clicks)
    assert totals["false_positives"] == 2 * false
    assert totals["elements"] == 4 * clicks  # one negative beside each
    assert totals["weight"] == totals["positives"] - totals["dropped"]
    for kind in ("users", "items"):
        counts = record.groups[kind]
        assert counts.positives.shape == (2, 4)
        assert counts.positives.sum(axis=1).tolist() == [clicks, clicks]
        assert counts.dropped.sum() == totals["dropped"] > 0
    assert [epoch for epoch, _ in callback.told] == [0, 1]
    last = callback.told[1][1]["items"]
    np.testing.assert_array_equal(record.groups["items"].dropped[1], last.dropped)


def test_a_loss_that_drops_nothing_has_no_groups(manifest, tmp_path):
    callback = Diagnostics()
    options = ["loss.name=rce", "train.epochs=1"]
    record = trained(manifest, tmp_path / "run", *options, callbacks=[callback])
    assert (record.loss, record.groups, callback.told) == ("rce", {}, [])
    assert (record.series["weight"] < record.series["positives"]).all()
    assert record.series["dropped"].sum() == 0


def test_nothing_is_kept_of_a_run_that_is_not_to_be_watched(manifest, tmp_path):
    options = [*TRUNCATED, "train.diagnostics_steps=0", "train.epochs=1"]
    assert trained(manifest, tmp_path / "run", *options) is None
    assert not (tmp_path / "run" / RECORD_FILE).exists()


@pytest.mark.parametrize(
    ("name", "loss", "known", "watched"),
    [
        ("gmf", {"name": "tce"}, False, True),
        ("gmf", {"name": "rce"}, False, True),
        ("gmf", None, True, True),
        ("gmf", None, False, False),
        ("nr", None, True, False),  # to a model that is told, false clicks are none
    ],
)
def test_what_is_watched(manifest, name, loss, known, watched):
    model = build_model(name, manifest.schema(), loss=loss)
    DenoisingRecorder(model, 100, known)
    assert (model.denoising_monitor is not None) is watched


RESUME = """
import sys
from pathlib import Path
from tests.denoising.test_recorder import TRUNCATED, trained
from tests.test_training import StopAt
from tfrec_feedback.data.manifest import load_manifest

manifest, run, stop = load_manifest(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
options = [*TRUNCATED, "train.deterministic=true", "train.checkpoint_steps=3"]
try:
    trained(manifest, run, *options, callbacks=[StopAt(stop)] if stop else [])
except KeyboardInterrupt:
    sys.exit(3)
"""


def in_new_process(*arguments):
    command = [sys.executable, "-c", RESUME, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return run.returncode, run.stderr[-2000:]


def test_an_interrupted_run_keeps_what_an_uninterrupted_one_does(manifest, tmp_path):
    # The second interruption falls into the second epoch, between two checkpoints.
    plan = [("whole", 0, 0), ("parts", 11, 3), ("parts", 14, 3), ("parts", 0, 0)]
    for folder, stop, code in plan:
        ended, errors = in_new_process(manifest.directory, tmp_path / folder, stop)
        assert ended == code, errors
    whole, parts = (DenoisingRecord.load(tmp_path / name) for name in ("whole", "parts"))
    assert list(whole.series) == list(parts.series)
    for name, values in whole.series.items():
        np.testing.assert_array_equal(values, parts.series[name], err_msg=name)
    for kind, counts in whole.groups.items():
        for name, values in vars(counts).items():
            np.testing.assert_array_equal(values, getattr(parts.groups[kind], name))
    described = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert described["finished"]
