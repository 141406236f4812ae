"""A study: what the rows of a table share, where results are kept, and how models are tuned.

What is finished is kept, in `trials/<model>/trial-000.json` and `cells/<label>/seed-0/`.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfrec_feedback.benchmark.cells import CELL_FILE, check_made_with, slug
from tfrec_feedback.benchmark.rows import Row, key_of
from tfrec_feedback.benchmark.tuning import (
    TUNING_SEED,
    Trial,
    search_space,
    starting_point,
    tune,
    tuned_settings,
)
from tfrec_feedback.config import Config, load_config
from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.schema import suggest

Say = Callable[[str], None]

_DECIDED = {"train.seed": "--seeds", "model.name": "--models", "data.directory": "--data"}
"""Settings that every run of a study is given, and the options that decide them."""


@dataclasses.dataclass(frozen=True)
class Study:
    """What the rows of a study share.

    Attributes:
        folder: where trials and cells go.
        data: prepared data.
        config: TOML file of the shared settings; None takes the defaults.
        overrides: `section.key=value` texts on top of it, decided for all models: not tuned.
        seeds: seeds 0, 1, ... of each row.
        budget: trials of each model; 0 does not tune.
    """

    folder: Path
    data: Path
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    seeds: int = 3
    budget: int = 8

    @property
    def test_batch_size(self) -> int:
        """Requests a batch of the test split, of all rows: it decides the order of exposures."""
        return load_config(self.config, self.overrides).data.batch_size

    def cell_folder(self, label: str, seed: int) -> Path:
        """Returns the folder of a cell; its run is in `run/` below."""
        return self.folder / "cells" / slug(label) / f"seed-{seed}"

    def trials_folder(self, model: str) -> Path:
        """Returns the folder of a model's trials."""
        return self.folder / "trials" / slug(model)

    def resolved(self, row: Row, settings: Mapping[str, Any], seed: int) -> Config:
        """Returns the configuration of one run: what is set by hand overrides what was tuned.

        Args:
            row: of the table.
            settings: dotted overrides found by tuning.
            seed: of the run.
        """
        tuned = [f"{key}={value!r}" for key, value in settings.items()]
        last = [f"model.name={row.model}", f"train.seed={seed}"]
        last.append(f"data.directory={json.dumps(str(self.data), ensure_ascii=False)}")
        return load_config(self.config, [*tuned, *self.overrides, *row.overrides, *last])

    def made_with(self, row: Row, manifest: Manifest) -> dict[str, Any]:
        """Returns what decides a row's numbers and is known before it is tuned, JSON-ready.

        Settings of a run that equal the defaults are left out, so that a new setting makes no kept
        result invalid; so are seeds and the place of the data. Parameters of the model are all
        there: a model whose defaults have changed is another model.
        """
        from tfrec_feedback.models import model_parameters

        config = self.resolved(row, {}, 0).model_dump(mode="json", exclude_defaults=True)
        for section, key in (("data", "directory"), ("train", "seed")):
            config.get(section, {}).pop(key, None)
        defaults = json.loads(json.dumps(model_parameters(row.model)))
        return {"settings": config, "model": defaults, "data": manifest.fingerprint}

    def cell_made_with(self, row: Row, manifest: Manifest) -> dict[str, Any]:
        """Returns `made_with`, and how the row is tuned."""
        tuning: dict[str, Any] = {"budget": self.budget, "space": self._tuned_keys(row)}
        if not row.tune:
            tuning = self._kept_settings(row)
        made_with = {**self.made_with(row, manifest), "tuning": tuning}
        if self.test_batch_size != self.resolved(row, {}, 0).data.batch_size:
            made_with["test_batch_size"] = self.test_batch_size
        return made_with

    def trial_made_with(self, model: str, manifest: Manifest) -> dict[str, Any]:
        """Returns `made_with` of a whole model, and which settings its trials vary."""
        row = Row(model, model)
        return {**self.made_with(row, manifest), "space": self._tuned_keys(row)}

    def _tuned_keys(self, row: Row) -> list[str]:
        return list(self.space(row.model)) if self.budget else []

    def fixed(self, row: Row) -> set[str]:
        """Returns the dotted keys that are set by hand, and so not tuned."""
        return {key_of(text) for text in (*self.overrides, *row.overrides)}

    def is_finished(self, row: Row) -> bool:
        """Returns whether every cell of a row is there."""
        folders = [self.cell_folder(row.label, seed) for seed in range(self.seeds)]
        return all((folder / CELL_FILE).is_file() for folder in folders)

    def space(self, model: str) -> dict[str, Any]:
        """Returns what is tuned of a model; without a history it keeps its whole's settings."""
        from tfrec_feedback.models import model_parameters

        whole = Row(model, model)
        fixed = self.fixed(whole)
        if self.resolved(whole, {}, 0).optimizer.name != "lazy_adam":
            fixed.add("optimizer.weight_decay")  # The other optimisers have none.
        return search_space(model_parameters(model), fixed)

    def settings(self, row: Row, manifest: Manifest, say: Say) -> dict[str, Any]:
        """Returns a row's best settings, tuned now as far as trials are missing."""
        from tfrec_feedback.models import model_parameters

        if not row.tune:
            return self._kept_settings(row)
        whole, space = Row(row.model, row.model), self.space(row.model)
        if self.budget == 0 or not space:
            return {}

        def run(number: int, settings: dict[str, float]) -> tuple[float | None, float]:
            return self._run_trial(whole, manifest, number, settings)

        shared = self.resolved(whole, {}, 0)
        monitor = shared.train.impression_monitor
        best = tune(
            self.trials_folder(row.model),
            self.budget,
            space,
            starting_point(shared, model_parameters(row.model)),
            run,
            made_with=self.trial_made_with(row.model, manifest),
            on_trial=lambda trial: say(_trial_line(row.model, trial, monitor)),
        )
        return dict(best.settings)

    def _kept_settings(self, row: Row) -> dict[str, Any]:
        fixed = self.fixed(row)
        found = tuned_settings(self.trials_folder(row.model))
        return {key: value for key, value in found.items() if key not in fixed}

    def _run_trial(
        self, row: Row, manifest: Manifest, number: int, settings: Mapping[str, float]
    ) -> tuple[float | None, float]:
        """Trains in a folder that is thrown away; None where the loss diverged."""
        from tfrec_feedback.training import NonFiniteLossError, train

        config = self.resolved(row, settings, TUNING_SEED)
        scratch = self.trials_folder(row.model) / f"run-{number:03d}"
        start, value = time.perf_counter(), None
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            result = train(config, manifest, scratch)
            value = result.history[result.best_epoch][config.train.impression_monitor]
        except NonFiniteLossError:
            pass
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            free_memory()
        return value, time.perf_counter() - start

    def check(self, rows: Sequence[Row], manifest: Manifest) -> None:
        """Checks all rows before any is trained: hours later would be too late.

        Args:
            rows: of the table.
            manifest: prepared data.

        Raises:
            ValueError: when a model has no parameter of a name that is set, a setting is one that
                the study decides, or two rows would be kept in one place.
            KeptResultError: when a kept result was made with other settings or data.
        """
        self._check_labels(rows)
        for row in rows:
            _check_parameters(row.model, self.resolved(row, {}, 0))
            if self.budget or not row.tune:
                made_with = self.trial_made_with(row.model, manifest)
                # What is not tuned now takes what was found, in whichever space.
                but = () if row.tune else ("space",)
                for path in sorted(self.trials_folder(row.model).glob("trial-*.json")):
                    check_made_with(path, made_with, but)
            for seed in range(self.seeds):
                path = self.cell_folder(row.label, seed) / CELL_FILE
                check_made_with(path, self.cell_made_with(row, manifest))

    def _check_labels(self, rows: Sequence[Row]) -> None:
        """Checks that every label is that of one row, and says what the row is."""
        labels: dict[Path, str] = {}
        for row in rows:
            for key in sorted(self.fixed(row) & _DECIDED.keys()):
                raise ValueError(
                    f"{key} is set or swept, and every run is given its own: expected other "
                    f"settings. Use {_DECIDED[key]}."
                )
            folder = self.cell_folder(row.label, 0).parent
            if folder in labels:
                raise ValueError(
                    f"Rows {labels[folder]!r} and {row.label!r} would both be kept in {folder}: "
                    "expected rows that differ. Leave one of them out."
                )
            labels[folder] = row.label


def _check_parameters(model: str, config: Config) -> None:
    from tfrec_feedback.models import model_parameters

    known = model_parameters(model)
    for key in config.model.params():
        if key not in known:
            raise ValueError(
                f"Model {model!r} has no parameter {key!r}; it takes {sorted(known)}."
                f"{suggest(key, known)}"
            )


def free_memory() -> None:
    """Lets go of the graphs and weights of models that nobody holds any more."""
    import tensorflow as tf

    tf.keras.backend.clear_session()
    gc.collect()


def _trial_line(model: str, trial: Trial, monitor: str) -> str:
    value = "diverged" if trial.value is None else f"{monitor} {trial.value:.4f}"
    found = ", ".join(f"{key.split('.')[-1]} {x:.3g}" for key, x in trial.settings.items())
    return f"{model}, trial {trial.number}: {value}, {trial.seconds:.0f} s ({found or 'as given'})"
