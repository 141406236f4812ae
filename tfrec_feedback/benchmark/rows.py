"""The rows of a benchmark's table: models, points of a sweep, models without a history."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfrec_feedback.config import Config
from tfrec_feedback.schema import Schema

_NAMED_HISTORIES = ("internal", "external", "histories")
"""Parameters of models that list the histories they read."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        label: what it is called.
        model: key of `tfrec_feedback.models.MODELS`.
        overrides: `section.key=value` texts of this row alone.
        tune: whether trials that are missing are made; a row that is not tuned takes the settings
            its model was tuned to earlier, or else the shared ones.
    """

    label: str
    model: str
    overrides: tuple[str, ...] = ()
    tune: bool = True


def key_of(override: str) -> str:
    """Returns the dotted key of a `section.key=value` text.

    Example:
        >>> key_of("train.epochs=2")
        'train.epochs'
    """
    return override.partition("=")[0].strip()


def model_rows(models: Sequence[str]) -> list[Row]:
    """Returns one row a model."""
    return [Row(model, model) for model in models]


def sweep_rows(models: Sequence[str], sweep: Sequence[str]) -> list[Row]:
    """Returns one row for every model and point of the grid.

    Args:
        models: their names.
        sweep: `section.key=value,value,...` texts.

    Raises:
        ValueError: for a text of another form, and a key that is swept twice.

    Example:
        >>> [row.label for row in sweep_rows(["dfn"], ["model.dislike_weight=1,5"])]
        ['dfn, dislike_weight=1', 'dfn, dislike_weight=5']
    """
    axes = [_axis(text) for text in sweep]
    keys = [key_of(text) for text in sweep]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(
                f"--sweep names {key} {keys.count(key)} times: expected every key once. Give all "
                f"of its values to one, {key}=value,value,..."
            )
    rows = []
    for model in models:
        for point in itertools.product(*axes):
            names = [f"{key.split('.')[-1]}={value}" for key, value in point]
            overrides = tuple(f"{key}={value}" for key, value in point)
            rows.append(Row(", ".join([model, *names]), model, overrides, tune=False))
    return rows


def dropped_rows(models: Sequence[str], schema: Schema, config: Config) -> list[Row]:
    """Returns every model whole, then without each history of the schema.

    A model that lists the dropped history among its parameters is told to do without it.

    Args:
        models: their names.
        schema: of the data.
        config: the shared settings; what they drop already stays dropped.
    """
    rows = []
    kept = schema.without(config.data.drop)
    for model in models:
        rows.append(Row(model, model))
        for history in kept.histories:
            drop = json.dumps([*config.data.drop, history.name])
            overrides = [f"data.drop={drop}", *_without(model, history.name, config)]
            rows.append(Row(f"{model}, no {history.name}", model, tuple(overrides)))
    return rows


def _without(model: str, history: str, config: Config) -> Iterator[str]:
    from tfrec_feedback.models import model_parameters

    values: Mapping[str, Any] = {**model_parameters(model), **config.model.params()}
    for key in _NAMED_HISTORIES:
        names = values.get(key) or ()
        left = [name for name in names if name != history]
        if key == "external" and values.get("denoised") == history:
            left = []  # Nothing is left that these histories could instruct the reading of.
        if left != list(names):
            yield f"model.{key}={json.dumps(left)}"


def _axis(text: str) -> list[tuple[str, str]]:
    key, separator, values = text.partition("=")
    # Commas inside the brackets of a list do not part values.
    points = [value.strip() for value in re.split(r",(?![^\[]*\])", values)]
    if not separator or "." not in key or not all(points):
        raise ValueError(
            f"--sweep {text!r}: expected section.key=value,value,..., for example "
            "model.dislike_weight=1,5,10."
        )
    return [(key.strip(), point) for point in points]
