"""Tuning: as many trials for every model, over the same space."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from tfrec_feedback.benchmark.cells import check_made_with
from tfrec_feedback.config import Config, OptimizerConfig
from tfrec_feedback.data.manifest import write_atomically

TUNING_SEED = 1000
"""Seed that trials train with: none of those reported."""

SPACE: dict[str, optuna.distributions.FloatDistribution] = {
    "optimizer.learning_rate": optuna.distributions.FloatDistribution(3e-4, 1e-2, log=True),
    "optimizer.weight_decay": optuna.distributions.FloatDistribution(1e-6, 1e-1, log=True),
    "model.dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
}
"""What is tuned; `model.dropout` where the model has it."""

# Optuna's default of ten draws at random would leave most budgets no informed trial.
_RANDOM_TRIALS = 4


@dataclasses.dataclass(frozen=True)
class Trial:
    """One try of tuning.

    Attributes:
        number: counted from 0; trial 0 takes the shared settings as they are.
        settings: dotted overrides; none in trial 0.
        value: the monitored validation metric at its best epoch; None where training diverged.
        seconds: wall clock.
    """

    number: int
    settings: dict[str, float]
    value: float | None
    seconds: float


def search_space(
    parameters: Collection[str], fixed: Collection[str] = ()
) -> dict[str, optuna.distributions.FloatDistribution]:
    """Returns the part of `SPACE` that a model has and nobody has decided already.

    Args:
        parameters: names of the model's parameters.
        fixed: dotted keys that the user has set.

    Example:
        >>> list(search_space(["dropout"], fixed=["optimizer.weight_decay"]))
        ['optimizer.learning_rate', 'model.dropout']
    """
    known = {f"model.{name}" for name in parameters}
    known |= {f"optimizer.{name}" for name in OptimizerConfig.model_fields}
    return {key: space for key, space in SPACE.items() if key in known and key not in fixed}


def tune(  # noqa: PLR0913 - the search, and what it reports to
    folder: Path,
    budget: int,
    space: Mapping[str, optuna.distributions.FloatDistribution],
    start: Mapping[str, float],
    run: Callable[[int, dict[str, float]], tuple[float | None, float]],
    *,
    made_with: Mapping[str, Any],
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Trial:
    """Searches for the settings of the highest value; goes on where it was interrupted.

    The sampler of a trial is seeded by the folder's name and the trial's number and sees the
    trials before it alone, so an interrupted search ends as an uninterrupted one.

    Args:
        folder: of the trials, one JSON file each; its name is the model's.
        budget: number of trials.
        space: what is searched.
        start: where trial 0, the shared settings, lies in the space; missing keys lie at the low
            end.
        run: called with number and settings, returns value (None: diverged) and seconds.
        made_with: settings and data, JSON-ready; trials of others are an error.
        on_trial: called after each new trial.

    Returns:
        The best trial; the first of equals.

    Raises:
        KeptResultError: when the folder holds trials of other settings.
        RuntimeError: when every trial diverged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trials: list[Trial] = []
    for number in range(budget):
        path = _path(folder, number)
        if check_made_with(path, made_with):
            trials.append(_load(path))
            continue
        settings = _suggest(folder.name, number, space, start, trials)
        value, seconds = run(number, settings)
        value = float(value) if value is not None and np.isfinite(value) else None
        trials.append(Trial(number, settings, value, seconds))
        described = {**dataclasses.asdict(trials[-1]), "made_with": dict(made_with)}
        write_atomically(path, (json.dumps(described, indent=2) + "\n").encode("utf-8"))
        on_trial(trials[-1])
    return best_trial(trials, folder)


def best_trial(trials: Sequence[Trial], folder: Path) -> Trial:
    """Returns the first trial of the highest value, or raises when none has one."""
    finished = [trial for trial in trials if trial.value is not None]
    if not finished:
        raise RuntimeError(
            f"All {len(trials)} trials in {folder} diverged or have no validation metric. Look at "
            "the data, set optimizer.clip_norm, or leave the model out."
        )
    return max(finished, key=lambda trial: (trial.value, -trial.number))


def tuned_settings(folder: Path) -> dict[str, float]:
    """Returns the best settings of all trials kept in a folder; none where there are none."""
    trials = [_load(path) for path in sorted(folder.glob("trial-*.json"))]
    return best_trial(trials, folder).settings if trials else {}


def starting_point(config: Config, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Returns where a model's shared settings lie in the space.

    Args:
        config: the shared settings.
        parameters: the model's parameters and their defaults.
    """
    values = {**parameters, **config.model.params()}
    found = {f"optimizer.{key}": value for key, value in config.optimizer.model_dump().items()}
    found["model.dropout"] = values.get("dropout", 0.0)
    return {key: found[key] for key in SPACE if key in found}


def _path(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:03d}.json"


def _load(path: Path) -> Trial:
    described = json.loads(path.read_text(encoding="utf-8"))
    del described["made_with"]
    return Trial(**described)


def _suggest(
    model: str,
    number: int,
    space: Mapping[str, optuna.distributions.FloatDistribution],
    start: Mapping[str, float],
    trials: Sequence[Trial],
) -> dict[str, float]:
    if number == 0 or not space:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = np.random.SeedSequence([zlib.crc32(model.encode()), number]).generate_state(1)[0]
    sampler = optuna.samplers.TPESampler(seed=int(seed), n_startup_trials=_RANDOM_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_as_optuna(trial, space, start) for trial in trials])
    return dict(study.ask(dict(space)).params)


def _as_optuna(
    trial: Trial,
    space: Mapping[str, optuna.distributions.FloatDistribution],
    start: Mapping[str, float],
) -> optuna.trial.FrozenTrial:
    """Returns a trial as the sampler sees it: shared settings moved into the space's borders."""
    params = trial.settings or {
        key: min(max(start.get(key, part.low), part.low), part.high) for key, part in space.items()
    }
    state = optuna.trial.TrialState.COMPLETE
    if trial.value is None:  # Pruned without a value: the sampler takes it for the worst.
        state = optuna.trial.TrialState.PRUNED
    return optuna.trial.create_trial(
        params=params, distributions=dict(space), value=trial.value, state=state
    )
