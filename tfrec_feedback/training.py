"""Trains a model on prepared requests, in a folder that says everything about the run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.config import Config, OptimizerConfig
from tfrec_feedback.data.manifest import Manifest, write_atomically
from tfrec_feedback.denoising.recorder import DenoisingRecorder
from tfrec_feedback.feeds import RequestFeed, make_feed
from tfrec_feedback.interests import (
    collect_interests,
    memory_health,
    snapshot_path,
    snapshot_steps,
)
from tfrec_feedback.models import build_model
from tfrec_feedback.optimizers import LazyAdam
from tfrec_feedback.runs import (
    MODEL_FILE,
    check_run,
    metrics_of_json,
    model_schema,
    open_run,
    to_json,
    update_run,
)

STATE_FILE = "state.json"
HEALTH_REQUESTS = 1024
SNAPSHOT_REQUESTS = 512
_BEST = "best*.weights.h5"
_OPTIONS_OF = {
    "row_scale": "lazy_adam",
    "weight_decay": "lazy_adam",
    "initial_accumulator": "adagrad",
}


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names the batch."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a finished run gives.

    Attributes:
        model: with the weights of the best epoch.
        history: for every epoch, its training loss and validation metrics.
        best_epoch: counted from 0.
        monitor: the metric it is the best by.
        skipped_records: damaged records left out.
        memory_health: `interests.memory_health` on the first validation requests; empty for a
            model without memory.
    """

    model: tf.keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    monitor: str
    skipped_records: int
    memory_health: dict[str, dict[str, float]]


def train(
    config: Config,
    manifest: Manifest,
    run: str | Path,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> TrainingResult:
    """Trains until validation stops improving, and keeps the best epoch.

    The folder holds the resolved configuration, schema and vocabularies, data fingerprint and
    package versions, TensorBoard logs, checkpoints, snapshots of the users' interests where the
    model has a memory, and at the end `model.keras` and, where there are diagnostics of denoising,
    `denoising.npz`. An interrupted
    run goes on where it stopped when it is started again with the same configuration and data;
    with `train.deterministic` it ends with the same numbers as an uninterrupted one.

    Args:
        config: the run's configuration.
        manifest: prepared data.
        run: the run's folder; new, or of an interrupted run.
        callbacks: further Keras callbacks, for example a progress display; those that have
            `on_plan(num_batches)`, `on_validation(epoch, results)` or `on_diagnostics(epoch,
            groups)`, of a loss that drops clicks, are called with them; `groups` as
            `DenoisingRecorder.on_epoch` returns.

    Returns:
        The trained model and its history.

    Raises:
        RunError: when the folder holds a finished run, one with other settings, or files that a
            run would write over.
        ValueError: for settings that do not fit together or the data, and data that an epoch
            cannot be trained on or chosen by. Settings that are refused leave no folder behind.
        NonFiniteLossError: when the loss is not finite.
        CorruptRecordError: when a record is damaged, unless `data.skip_corrupt`.
    """
    directory = Path(run)
    check_run(directory, config, manifest)
    _seed(config)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _Trainer(config, manifest, directory, Path(scratch))
        open_run(directory, config, manifest)
        return trainer.run(callbacks)


class _Trainer:
    """One run: model, optimiser, data and what is known so far."""

    def __init__(self, config: Config, manifest: Manifest, directory: Path, scratch: Path):
        self.config = config
        self.directory = directory
        schema = model_schema(config, manifest)
        params = config.model.params()
        if (loss := config.loss.options()) is not None:
            params["loss"] = loss
        self.model = build_model(config.model.name, schema, **params)
        self.recorder = DenoisingRecorder(
            self.model, config.train.diagnostics_steps, manifest.knows_false_positives
        )
        self.feed = make_feed(config, manifest, self.model, scratch)
        self.monitor = self._checked_monitor()
        self.model.micro_batches = config.train.micro_batches
        if config.train.compiled:
            if not hasattr(self.model, "compiled_training"):
                raise ValueError(
                    f"train.compiled is for models with a compiled step, as din; "
                    f"{config.model.name!r} has none. Leave it out."
                )
            self.model.compiled_training = True
        at_once = config.train.steps_at_once
        self.model.compile(make_optimizer(config.optimizer), steps_per_execution=at_once)
        if at_once > 1 and not getattr(self.model, "compiles", False):
            raise ValueError(
                f"train.steps_at_once={at_once} is for steps that are compiled: set "
                "train.compiled=true and train.diagnostics_steps=0, and leave out dropout, "
                "optimizer.clip_norm, train.micro_batches and losses that drop clicks; or leave "
                "steps_at_once out."
            )
        self.model.optimizer.build(self.model.trainable_variables)
        self.checkpoint = tf.train.Checkpoint(
            model=self.model, optimizer=self.model.optimizer, **self.recorder.checkpointed()
        )
        self.manager = tf.train.CheckpointManager(
            self.checkpoint, str(directory / "checkpoints"), max_to_keep=2
        )
        self.state: dict[str, Any] = {"epoch": 0, "batch": 0, "loss": 0.0, "history": []}
        # What earlier versions called them, whose states do not say.
        self.state["best_weights"] = "best.weights.h5"
        self.steps = 0  # that the optimiser has taken
        self._snapshot_steps: set[int] = set()
        if self.model.user_memory is not None and config.train.snapshots:
            planned = self.feed.num_batches * config.train.epochs
            self._snapshot_steps = set(snapshot_steps(planned, config.train.snapshots))

    def _checked_monitor(self) -> str:
        monitor = self.config.train.monitor or self.feed.monitors[0]
        if monitor not in self.feed.monitors:
            raise ValueError(
                f"train.monitor={monitor!r} is not measured on these data; choose one of "
                f"{list(self.feed.monitors)}, or leave it out for {self.feed.monitors[0]!r}."
            )
        if self.model.main_task == "dislike" and monitor != "dislike_auc":
            raise ValueError(
                "model.dislike_protocol='dislike_label' trains on dislikes alone, so an epoch "
                "cannot be chosen by clicks. Set train.monitor='dislike_auc'."
            )
        self.feed.check(monitor)
        return monitor

    def _resume(self) -> None:
        path = self.directory / STATE_FILE
        if not path.is_file():
            return
        self.state |= json.loads(path.read_text(encoding="utf-8"))
        self.state["history"] = metrics_of_json(self.state["history"])
        self.steps = self.state["steps"]
        self.recorder.state = self.state["denoising"]
        prefix = str(self.directory / "checkpoints" / self.state["checkpoint"])
        self.checkpoint.restore(prefix).assert_existing_objects_matched()

    def save(self, epoch: int, batch: int, loss: float) -> None:
        """Checkpoints; the state is written last, so it never names what is not there."""
        saved = self.manager.save()
        self.state |= {
            "epoch": epoch,
            "batch": batch,
            "loss": loss,
            "steps": self.steps,
            "checkpoint": Path(saved).name,
            "denoising": self.recorder.state,
        }
        write_atomically(self.directory / STATE_FILE, to_json(self.state).encode("utf-8"))

    def run(self, callbacks: Sequence[tf.keras.callbacks.Callback]) -> TrainingResult:
        """Trains the epochs that are left."""
        self._resume()
        for callback in callbacks:
            if hasattr(callback, "on_plan"):
                callback.on_plan(self.feed.num_batches)
        writer = tf.summary.create_file_writer(str(self.directory / "tensorboard"))
        with writer.as_default():
            while self.state["epoch"] < self.config.train.epochs and not self._stopped():
                with self.feed.naming_damage():
                    self._epoch(callbacks)
        self.snapshot(last=True)
        return self._finish()

    def snapshot(self, last: bool = False) -> None:
        """Writes the interests down if it is time to, and where training ends early.

        A step that is trained again after an interruption is written again, over the old file.
        """
        if not self._snapshot_steps or not isinstance(self.feed, RequestFeed):
            return
        if self.steps in self._snapshot_steps or last:
            dataset = self.feed.validation(self.model)
            interests = collect_interests(self.model, dataset, SNAPSHOT_REQUESTS)
            interests.save(snapshot_path(self.directory, self.steps))

    def _stopped(self) -> bool:
        history = self.state["history"]
        return len(history) > self._best_epoch() + self.config.train.patience

    def _best_epoch(self) -> int:
        values = [epoch[self.monitor] for epoch in self.state["history"]]
        return int(np.argmax(values)) if values else 0

    def _epoch(self, callbacks: Sequence[tf.keras.callbacks.Callback]) -> None:
        epoch, batch = self.state["epoch"], self.state["batch"]
        if not epoch and not batch:
            self.snapshot()
        loss = self._fit(epoch, batch, callbacks)
        groups = self.recorder.on_epoch(self.steps)
        results = {"loss": loss, **self.feed.validate()}
        if not np.isfinite(results[self.monitor]):
            raise ValueError(
                f"train.monitor={self.monitor!r} is {results[self.monitor]} on the validation "
                "split: nobody there has exposures of both classes. Choose another metric, and "
                "another --output."
            )
        self.state["history"].append(results)
        for name, value in results.items():
            tf.summary.scalar(f"epoch/{name}", value, step=epoch)
        if self._best_epoch() == epoch:
            # Beside the earlier best, which the state on the disk names until the new one is saved.
            self.state["best_weights"] = _BEST.replace("*", f"-{epoch}")
            self.model.save_weights(self.directory / self.state["best_weights"])
        self.save(epoch + 1, 0, 0.0)
        for path in self.directory.glob(_BEST):
            if path.name != self.state["best_weights"]:
                path.unlink()
        for callback in callbacks:
            if hasattr(callback, "on_validation"):
                callback.on_validation(epoch, results)
            if groups and hasattr(callback, "on_diagnostics"):
                callback.on_diagnostics(epoch, groups)

    def _fit(
        self, epoch: int, batch: int, callbacks: Sequence[tf.keras.callbacks.Callback]
    ) -> float:
        """Trains what is left of an epoch, and returns the mean loss of all of it."""
        if batch == self.feed.num_batches:
            # Interrupted while it was validated: Keras fits no empty dataset.
            skipped = tf.keras.callbacks.CallbackList([*callbacks], model=self.model)
            skipped.on_epoch_begin(epoch)
            skipped.on_epoch_end(epoch)
            return self.state["loss"] / batch
        watch = _Watch(self, epoch, batch, self.state["loss"])
        # Where the end is not known, Keras finds it by a step too many, which the optimiser counts.
        left = tf.data.experimental.assert_cardinality(self.feed.num_batches - batch)
        self.model.fit(
            self.feed.train(epoch, batch).apply(left),
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=[watch, *callbacks],
            verbose=0,
        )
        return watch.loss / max(watch.batch, 1)

    def _finish(self) -> TrainingResult:
        model = type(self.model).from_config(self.model.get_config())
        model.build_weights()
        model.load_weights(self.directory / self.state["best_weights"])
        temporary = self.directory / f".tmp-{MODEL_FILE}"
        model.save(temporary, save_format="keras")
        temporary.rename(self.directory / MODEL_FILE)
        history, best = self.state["history"], self._best_epoch()
        health: dict[str, dict[str, float]] = {}
        if model.user_memory is not None and isinstance(self.feed, RequestFeed):
            interests = collect_interests(model, self.feed.validation(model), HEALTH_REQUESTS)
            health = memory_health(model, interests)
        results = {
            "best_epoch": best,
            "monitor": self.monitor,
            "history": history,
            "memory_health": health,
        }
        self.recorder.save(self.directory, self.steps)
        update_run(self.directory, finished=True, **results)
        shutil.rmtree(self.directory / "checkpoints")
        for path in (*self.directory.glob(_BEST), self.directory / STATE_FILE):
            path.unlink()
        return TrainingResult(model, history, best, self.monitor, self.feed.skipped_records, health)


class _Watch(tf.keras.callbacks.Callback):
    """Sums the loss, stops on NaN, and checkpoints inside the epoch."""

    def __init__(self, trainer: _Trainer, epoch: int, batch: int, loss: float):
        super().__init__()
        self._trainer = trainer
        self._epoch = epoch
        self.batch = self._skipped = batch
        self.loss = loss

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at a batch's loss, or at the mean of as many as were taken at once."""
        loss = float((logs or {})["total_loss"])
        taken = self._skipped + batch + 1 - self.batch
        if not np.isfinite(loss):
            raise NonFiniteLossError(self._explain(loss, taken))
        self.batch += taken
        self.loss += loss * taken
        self._trainer.steps += taken
        self._trainer.recorder.on_step(self._trainer.steps)
        self._trainer.snapshot()
        if self.batch % 100 < taken:
            tf.summary.scalar("batch/loss", loss, step=self.model.optimizer.iterations)
        if self.batch % self._trainer.config.train.checkpoint_steps < taken:
            self._trainer.save(self._epoch, self.batch, self.loss)

    def _explain(self, loss: float, taken: int) -> str:
        where = self._trainer.feed.describe(self._epoch, self.batch)
        if taken > 1:
            where = f"or the {taken - 1} batches after it; {where}"
        return (
            f"The loss became {loss} in epoch {self._epoch + 1}, batch {self.batch + 1} "
            f"({where}). The last checkpoint is intact. Try a smaller "
            "optimizer.learning_rate or set optimizer.clip_norm, and look at these requests."
        )


def make_optimizer(config: OptimizerConfig) -> tf.keras.optimizers.Optimizer:
    """Builds the optimiser of a configuration.

    Raises:
        ValueError: for an option that the optimiser does not have.
    """
    for key, name in _OPTIONS_OF.items():
        default = OptimizerConfig.model_fields[key].default
        if config.name != name and getattr(config, key) != default:
            raise ValueError(
                f"optimizer.{key} is for {name} alone, got optimizer.name={config.name!r}. Set it "
                f"to {default}, or use {name}."
            )
    options: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "global_clipnorm": config.clip_norm,
    }
    if config.name == "adagrad":
        start = config.initial_accumulator
        return tf.keras.optimizers.Adagrad(initial_accumulator_value=start, **options)
    if config.name == "adam":
        return tf.keras.optimizers.Adam(jit_compile=False, **options)
    return LazyAdam(row_scale=config.row_scale, weight_decay=config.weight_decay, **options)


def _seed(config: Config) -> None:
    tf.keras.utils.set_random_seed(config.train.seed)
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
