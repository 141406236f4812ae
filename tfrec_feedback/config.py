"""The configuration of a training run: typed, read from TOML, overridden by `--set a.b=1`.

Defaults live here and in the model classes, nowhere else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfrec_feedback.schema import suggest


class ConfigError(ValueError):
    """A configuration file or override is not as expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataConfig(_Section):
    """What is read.

    Attributes:
        directory: prepared data (`python -m pipelines.prepare`).
        batch_size: requests a batch.
        drop: features and histories that the model does not get.
        skip_corrupt: skips and counts damaged records instead of stopping.
    """

    directory: str = "data/simulated"
    batch_size: int = Field(default=256, ge=1)
    drop: list[str] = Field(default_factory=list)
    skip_corrupt: bool = False


class ModelConfig(BaseModel):
    """Which model; every further key is a parameter of its class."""

    model_config = ConfigDict(extra="allow")

    name: str = "dfn"

    def params(self) -> dict[str, Any]:
        """Returns the parameters beside the name."""
        return dict(self.model_extra or {})


class OptimizerConfig(_Section):
    """How weights are updated.

    Attributes:
        name: `lazy_adam` (rows of the batch only), `adam` (every row), or `adagrad`.
        learning_rate: step size.
        row_scale: factor on the learning rate of embedding rows (`lazy_adam`).
        weight_decay: share of itself that a weight loses with every step of size 1; of embedding
            tables only the batch's rows, times `row_scale`; biases none (`lazy_adam`).
        clip_norm: global norm that gradients are clipped to; None does not clip.
        initial_accumulator: start of Adagrad's sums of squares.
    """

    name: Literal["lazy_adam", "adam", "adagrad"] = "lazy_adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    row_scale: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    initial_accumulator: float = Field(default=0.1, ge=0)


class TrainConfig(_Section):
    """How long and how.

    Attributes:
        epochs: most epochs.
        seed: of weights, order and dropout.
        monitor: validation metric that decides which epoch is kept.
        patience: epochs without a better value before training stops.
        micro_batches: parts a batch is split into, to save memory; one step all the same, see
            `FeedbackModel`.
        checkpoint_steps: steps between checkpoints inside an epoch.
        snapshots: times during training that interests are written down for the pictures of
            pipelines.visualize; models with a memory only; 0 for none.
        deterministic: same numbers in every run and across an interruption, slower.
    """

    epochs: int = Field(default=5, ge=1)
    seed: int = Field(default=0, ge=0)
    monitor: Literal["ctr_auc", "ctr_gauc", "dislike_auc"] = "ctr_auc"
    patience: int = Field(default=1, ge=1)
    micro_batches: int = Field(default=1, ge=1)
    checkpoint_steps: int = Field(default=500, ge=1)
    snapshots: int = Field(default=4, ge=0)
    deterministic: bool = False


class Config(_Section):
    """A whole run; `[data]`, `[model]`, `[optimizer]` and `[train]` in TOML."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file, where one is given, and applies overrides to it.

    Args:
        path: the file; None takes the defaults.
        overrides: `section.key=value` or `section.group.key=value` texts; values are TOML (`0.1`,
            `true`, `[32, 16]`), and anything that is not TOML counts as text.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: names the key that is unknown or wrong, and the closest known one.

    Example:
        >>> load_config(overrides=["train.epochs=2", "model.name=dfn_click"]).train.epochs
        2
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"No configuration at {path}: expected a TOML file.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, path) for e in error.errors())) from error


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not separator or not 1 <= len(parents) <= 2:
        raise ConfigError(
            f"--set {override!r}: expected section.key=value, e.g. train.epochs=2, or "
            "section.group.key=value."
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = values
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override!r}: {name!r} is not a section.")
    section[last] = value


def _explain(error: Any, path: str | Path | None) -> str:
    where = ".".join(str(part) for part in error["loc"])
    source = f"{path}: " if path is not None else ""
    if error["type"] != "extra_forbidden":
        return f"{source}{where}: {error['msg']}, got {error['input']!r}."
    section = error["loc"][:-1]
    cls = Config if not section else type(getattr(Config(), section[0]))
    known = list(cls.model_fields)
    hint = suggest(str(error["loc"][-1]), known)
    return f"{source}unknown key {where!r}; expected one of {known}.{hint}"
