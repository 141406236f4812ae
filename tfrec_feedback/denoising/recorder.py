"""Reads a model's denoising monitor while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.denoising.analysis import GroupCounts, group_counts, quality
from tfrec_feedback.denoising.record import DenoisingRecord
from tfrec_feedback.full_ranking import sparsity_groups
from tfrec_feedback.losses import Reweighted, Truncated
from tfrec_feedback.models import FeedbackModel
from tfrec_feedback.models.denoising_monitor import DenoisingMonitor

_SHOWN = ("drop_rate", "dropped", "recall", "precision", "loss_true", "loss_false")


class DenoisingRecorder:
    """Diagnostics of one run, a window of steps at a time.

    There is something to record when the loss doubts clicks, or when the data know which of them
    were mistakes; otherwise nothing is done. What was read so far is in `state`, what was not is in
    the monitor's variables: with both checkpointed, an interrupted run goes on with the same
    numbers.

    Args:
        model: what is trained; gets a `denoising_monitor`.
        steps: steps of a window; 0 records nothing.
        knows_false_positives: whether the data do.
    """

    def __init__(self, model: FeedbackModel, steps: int, knows_false_positives: bool):
        self._steps = steps
        self._loss = "ce"
        if isinstance(model.click_loss, Truncated):
            self._loss = "tce"
        elif isinstance(model.click_loss, Reweighted):
            self._loss = "rce"
        # To a model that is told which clicks were mistakes, they are none.
        told = model.reads_satisfaction or model.main_task != "ctr"
        wanted = self._loss != "ce" or (knows_false_positives and not told)
        self._monitor: DenoisingMonitor | None = None
        if steps and wanted:
            self._monitor = DenoisingMonitor(model.schema, model.click_loss)
            model.denoising_monitor = self._monitor
        self.state: dict[str, list[Any]] = {"windows": [], "epochs": []}

    def checkpointed(self) -> dict[str, tf.train.Checkpoint]:
        """Returns what belongs into the run's checkpoint, by name."""
        if self._monitor is None:
            return {}
        return {"denoising": tf.train.Checkpoint(**self._monitor.variables)}

    def on_step(self, step: int) -> None:
        """Ends the window if it is time to.

        Args:
            step: optimiser steps done.
        """
        if self._monitor is not None and step - self._last >= self._steps:
            self._read(step)

    def on_epoch(self, step: int) -> dict[str, GroupCounts]:
        """Ends the epoch, and the window where at least half of it is over.

        Args:
            step: optimiser steps done.

        Returns:
            What groups of `"users"` and `"items"` lost in this epoch; empty for a loss that drops
            nothing.
        """
        if self._monitor is None:
            return {}
        if 2 * (step - self._last) >= self._steps:
            self._read(step)
        counts = {}
        for kind, rows in self._monitor.read_rows().items():
            met = rows.positives > 0
            positives, dropped = rows.positives[met], rows.dropped[met]
            counts[kind] = group_counts(sparsity_groups(positives), positives, dropped)
        self.state["epochs"].append(
            {k: {name: x.tolist() for name, x in vars(v).items()} for k, v in counts.items()}
        )
        return counts

    def save(self, directory: Path, step: int) -> None:
        """Writes the `DenoisingRecord` of the run into its folder, if there is one.

        Args:
            directory: the run's folder.
            step: optimiser steps done. The last window holds what is left of the run.
        """
        if self._monitor is None:
            return
        windows, epochs = self.state["windows"], self.state["epochs"]
        if step > self._last:
            rest = self._monitor.read()
            before = windows.pop() if windows else dict.fromkeys(rest, 0.0)
            total = {name: before[name] + value for name, value in rest.items()}
            windows.append({"step": step, **total})
        groups = {
            kind: GroupCounts(
                **{name: np.array([epoch[kind][name] for epoch in epochs]) for name in names}
            )
            for kind, names in epochs[0].items()
        }
        DenoisingRecord(self._loss, _columns(windows), groups).save(directory)

    @property
    def _last(self) -> int:
        """Steps done when the last window ended."""
        windows = self.state["windows"]
        return windows[-1]["step"] if windows else 0

    def _read(self, step: int) -> None:
        window = {"step": step, **self._monitor.read()}  # type: ignore[union-attr]
        self.state["windows"].append(window)
        found = quality(_columns([window]))
        for name in _SHOWN:
            if np.isfinite(value := getattr(found, name)[0]):
                tf.summary.scalar(f"denoising/{name}", value, step=step)


def _columns(windows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([window[name] for window in windows]) for name in windows[0]}
