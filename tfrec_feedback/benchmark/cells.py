"""What a benchmark keeps: finished runs ("cells" of its table), and how fast models are."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec_feedback.data.manifest import write_atomically

if TYPE_CHECKING:
    from tfrec_feedback.evaluation import Predictions

CELL_FILE = "cell.json"
PREDICTIONS_FILE = "predictions.npz"
_BY_TASK = ("labels", "logits")
_COLUMNS = ("users", "weights", "history", "clicks", "request_size")


class KeptResultError(RuntimeError):
    """A kept cell or trial was made with other settings or data than those asked for now."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One finished run: one row of the table, one seed.

    Attributes:
        label: row of the table: the model's name, or `"dfn, dislike_weight=5"` in a sweep.
        seed: of weights, order and dropout.
        parameters: number of trainable weights.
        settings: dotted overrides chosen by tuning, such as `{"optimizer.learning_rate": 0.002}`.
        history: loss and validation metrics of every epoch.
        best_epoch: the epoch that was kept, counted from 0.
        predictions: of the test split.
        seconds: wall clock of the training.
    """

    label: str
    seed: int
    parameters: int
    settings: dict[str, Any]
    history: list[dict[str, float]]
    best_epoch: int
    predictions: Predictions
    seconds: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """How fast a model is; medians.

    Attributes:
        samples_per_second: candidates a second in training steps, without reading; NaN where
            several steps are one program.
        latency_ms: milliseconds to score one request of 100 candidates.
    """

    samples_per_second: float
    latency_ms: float


def slug(label: str) -> str:
    """Returns a folder name for a label: `"dfn, key=5"` becomes `"dfn-key=5"`."""
    return re.sub(r"[^\w.=+]+", "-", label).strip("-")


def save_cell(folder: str | Path, cell: Cell, made_with: Mapping[str, Any] | None = None) -> None:
    """Writes `predictions.npz`, then `cell.json`: a cell exists as a whole or not at all.

    Args:
        folder: the cell's own; made where it is missing.
        cell: what to keep.
        made_with: settings and data, JSON-ready, for `check_made_with`.
    """
    directory = Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    predictions = cell.predictions
    arrays = {name: getattr(predictions, name) for name in _COLUMNS}
    for part in _BY_TASK:
        arrays |= {f"{part}.{task}": x for task, x in getattr(predictions, part).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(directory / PREDICTIONS_FILE, buffer.getvalue())
    described = {
        field.name: getattr(cell, field.name)
        for field in dataclasses.fields(cell)
        if field.name != "predictions"
    }
    described["history"] = [numbers_or_null(epoch) for epoch in cell.history]
    described["made_with"] = dict(made_with or {})
    text = json.dumps(described, indent=2, allow_nan=False) + "\n"
    write_atomically(directory / CELL_FILE, text.encode("utf-8"))


def load_cell(folder: str | Path) -> Cell:
    """Reads what `save_cell` wrote.

    Raises:
        FileNotFoundError: when there is no finished cell.
    """
    from tfrec_feedback.evaluation import Predictions

    directory = Path(folder)
    if not (directory / CELL_FILE).is_file():
        raise FileNotFoundError(
            f"No finished cell in {directory}: expected {CELL_FILE}, which "
            "`python -m pipelines.benchmark` writes."
        )
    described = json.loads((directory / CELL_FILE).read_text(encoding="utf-8"))
    del described["made_with"]
    described["history"] = [numbers_or_nan(epoch) for epoch in described["history"]]
    with np.load(directory / PREDICTIONS_FILE) as arrays:
        columns: dict[str, Any] = {name: arrays[name] for name in _COLUMNS}
        for part in _BY_TASK:
            names = [name for name in arrays.files if name.startswith(f"{part}.")]
            columns[part] = {name.removeprefix(f"{part}."): arrays[name] for name in names}
    return Cell(predictions=Predictions(**columns), **described)


def check_made_with(path: Path, expected: Mapping[str, Any], but: Collection[str] = ()) -> bool:
    """Returns whether a result is kept at `path`; a result of other settings is an error.

    Args:
        path: a JSON file with an entry `made_with`.
        expected: what it would be made with now.
        but: entries that may differ.

    Raises:
        KeptResultError: names the folder and what differs.
    """
    if not path.is_file():
        return False
    before = json.loads(path.read_text(encoding="utf-8"))["made_with"]
    expected = json.loads(json.dumps(expected))
    for key in sorted({*before, *expected} - {*but}):
        if before.get(key) != expected.get(key):
            raise KeptResultError(
                f"{path.parent} holds a result made with {key} {before.get(key)}; asked for now: "
                f"{expected.get(key)}. Choose another --output, start the benchmark as it was, or "
                "remove that folder to have it made again."
            )
    return True


def numbers_or_null(values: Mapping[str, float]) -> dict[str, float | None]:
    """Returns JSON-ready numbers: JSON has no NaN, so a number that is not finite is null."""
    return {name: float(x) if np.isfinite(x) else None for name, x in values.items()}


def numbers_or_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    """Undoes `numbers_or_null`."""
    return {name: float("nan") if x is None else x for name, x in values.items()}
