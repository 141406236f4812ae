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

Monitor = Literal[
    "ctr_auc",
    "ctr_gauc",
    "dislike_auc",
    "recall_5",
    "recall_20",
    "recall_50",
    "ndcg_5",
    "ndcg_20",
    "ndcg_50",
]


class ConfigError(ValueError):
    """A configuration file or override is not as expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataConfig(_Section):
    """What is read.

    Attributes:
        directory: prepared data (`python -m pipelines.prepare`).
        batch_size: requests a batch; of interactions, positives a batch, or users where the model
            reads their whole history.
        num_negatives: negatives drawn for a positive interaction; default: the model's. Of
            requests nothing is drawn: refused.
        drop: features and histories that the model does not get.
        skip_corrupt: skips and counts damaged records of requests instead of stopping; refused on
            interactions.
    """

    directory: str = "data/simulated"
    batch_size: int = Field(default=256, ge=1)
    num_negatives: int | None = Field(default=None, ge=1)
    drop: list[str] = Field(default_factory=list)
    skip_corrupt: bool = False


class ModelConfig(BaseModel):
    """Which model; every further key is a parameter of its class."""

    model_config = ConfigDict(extra="allow")

    name: str = "dfn"

    def params(self) -> dict[str, Any]:
        """Returns the parameters beside the name."""
        return dict(self.model_extra or {})


class LossConfig(_Section):
    """What is done about clicks that were mistakes; unset options have the loss's own defaults.

    Attributes:
        name: `ce` trusts every click; `tce` (truncated) drops the clicks of largest loss; `rce`
            (reweighted) trusts the model's own confidence.
        base: loss of an exposure: `cross_entropy`, `square`, `hinge`, `bpr`.
        max_rate: largest share that is dropped (`tce`).
        num_steps: optimiser steps until it is reached (`tce`).
        drop_base: what it is a share of: `batch` or `positives` (`tce`).
        rounding: of the number dropped: `floor` or `ceil` (`tce`).
        scope: chooses among the examples of a `replica` or of all, `global` (`tce`).
        max_positive_fraction: most positives of a batch that are ever dropped (`tce`).
        schedule: `paper`, or `code`, which reaches the largest rate a step earlier (`tce`).
        beta: exponent of the confidence; 0 is `ce` (`rce`).
        negatives: `reweighted` or `plain` (`rce`).
    """

    name: Literal["ce", "tce", "rce"] = "ce"
    base: Literal["cross_entropy", "square", "hinge", "bpr"] = "cross_entropy"
    max_rate: float | None = None
    num_steps: int | None = None
    drop_base: Literal["batch", "positives"] | None = None
    rounding: Literal["floor", "ceil"] | None = None
    scope: Literal["replica", "global"] | None = None
    max_positive_fraction: float | None = None
    schedule: Literal["paper", "code"] | None = None
    beta: float | None = None
    negatives: Literal["reweighted", "plain"] | None = None

    def options(self) -> dict[str, Any] | None:
        """Returns the options of a model's `loss`; None for plain cross entropy."""
        return self.model_dump(exclude_none=True, exclude_defaults=True) or None


class OptimizerConfig(_Section):
    """How weights are updated; what is for one optimiser alone is refused with another.

    Attributes:
        name: `lazy_adam` (rows of the batch only), `adam` (every row), or `adagrad`.
        learning_rate: step size.
        row_scale: factor on the learning rate of embedding rows (`lazy_adam`).
        weight_decay: share of itself that a weight loses with every step of size 1; of embedding
            tables only the batch's rows, times `row_scale`; biases none (`lazy_adam`).
        clip_norm: global norm that gradients are clipped to, of `lazy_adam` after those of a row
            that is looked up repeatedly are summed; None does not clip.
        initial_accumulator: start of Adagrad's sums of squares (`adagrad`).
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
        monitor: validation metric that decides which epoch is kept; default `ctr_auc`, on
            interactions `ndcg_20`.
        patience: epochs without a better value before training stops.
        micro_batches: parts a batch is split into, to save memory; one step all the same, but for
            what looks at a batch as a whole: what `tce` drops, the strata of `nr`, and more that
            `FeedbackModel` lists.
        checkpoint_steps: steps between checkpoints inside an epoch.
        snapshots: times during training that interests are written down for the pictures of
            pipelines.visualize; models with a memory only; 0 for none.
        diagnostics_steps: steps of a window of the diagnostics of a denoising loss (`tce`, `rce`),
            or of any loss on data that know which clicks were mistakes; 0 for none.
        deterministic: same numbers in every run and across an interruption, slower.
        compiled: XLA compiles the steps of a model that can (`DIN.compiled_training`): the same
            descent, faster where nearly all histories are full, slower where they are not.
        steps_at_once: compiled steps that are one program, their batches padded to one shape: the
            same descent, faster where batches are small and full. Losses are looked at, and
            checkpoints written, between programs.
    """

    epochs: int = Field(default=5, ge=1)
    seed: int = Field(default=0, ge=0)
    monitor: Monitor | None = None
    patience: int = Field(default=1, ge=1)
    micro_batches: int = Field(default=1, ge=1)
    checkpoint_steps: int = Field(default=500, ge=1)
    snapshots: int = Field(default=4, ge=0)
    diagnostics_steps: int = Field(default=100, ge=0)
    deterministic: bool = False
    compiled: bool = False
    steps_at_once: int = Field(default=1, ge=1)

    @property
    def impression_monitor(self) -> str:
        """What an epoch on impressions is chosen by."""
        return self.monitor or "ctr_auc"


class Config(_Section):
    """A whole run; `[data]`, `[model]`, `[loss]`, `[optimizer]` and `[train]` in TOML."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
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
