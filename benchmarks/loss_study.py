"""Runs of one model with several losses, whose options are chosen on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.study import is_finished
from tfrec_feedback.config import Config, load_config
from tfrec_feedback.data.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class Setting:
    """A loss with its options.

    Attributes:
        loss: `"ce"`, `"tce"` or `"rce"`.
        overrides: configuration of its options.
    """

    loss: str
    overrides: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name of the setting in folders and tables."""
        values = [text.partition("=")[2] for text in self.overrides]
        return "-".join([self.loss, *values])


class LossStudy:
    """The runs of one model; finished ones are kept, and never mixed with other settings or data.

    Args:
        manifest: prepared data.
        config: TOML file that all runs share.
        overrides: of it, the model's name among them.
        folder: where the runs go.
        console: where progress is printed.
    """

    def __init__(
        self, manifest: Manifest, config: Path, overrides: list[str], folder: Path, console: Console
    ):
        self.manifest, self.config, self.overrides = manifest, config, overrides
        self.folder, self.console = folder, console

    def choose(self, settings: Iterable[Setting]) -> dict[str, Setting]:
        """Returns the setting of each loss that is best on validation, with seed 0."""
        best: dict[str, tuple[float, Setting]] = {}
        for setting in settings:
            described = self.trained(setting, 0)
            value = described["history"][described["best_epoch"]][described["monitor"]]
            self.console.print(f"{self.folder.name} {setting.label}: {value:.4f}", highlight=False)
            if setting.loss not in best or value > best[setting.loss][0]:
                best[setting.loss] = value, setting
        return {loss: setting for loss, (_, setting) in best.items()}

    def resolved(self, setting: Setting, seed: int) -> Config:
        """Returns the configuration of a run."""
        more = [f"loss.name={setting.loss}", *setting.overrides, f"train.seed={seed}"]
        return load_config(self.config, [*self.overrides, *more])

    def run(self, setting: Setting, seed: int) -> Path:
        """Returns the folder of a run.

        Raises:
            RunError: when it holds one that was finished with other settings or data.
        """
        run = self.folder / f"{setting.label}-{seed}"
        is_finished(run, self.resolved(setting, seed), self.manifest)
        return run

    def trained(self, setting: Setting, seed: int) -> dict[str, Any]:
        """Returns the description of a run, after training it if it is missing."""
        import tensorflow as tf

        from tfrec_feedback.runs import describe_run
        from tfrec_feedback.training import train

        run, config = self.run(setting, seed), self.resolved(setting, seed)
        if not is_finished(run, config, self.manifest):
            tf.keras.backend.clear_session()
            train(config, self.manifest, run)
        return describe_run(run)
