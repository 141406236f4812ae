"""Results of a folder of runs by the options of their denoising losses."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_RANKING_METRIC = "recall_20"
_SWEPT = ("name", "max_rate", "num_steps", "beta")


class Point(NamedTuple):
    """What one run reached, with its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Results of runs that differ in their loss, and in their seed, alone.

    Attributes:
        metric: what was measured, on the test split.
        baseline: runs that trust every click, one a seed.
        truncated: by `(max_rate, num_steps)`.
        reweighted: by `beta`.
    """

    metric: str
    baseline: list[Point]
    truncated: dict[tuple[float, int], list[Point]]
    reweighted: dict[float, list[Point]]


def read_sensitivity(grid: str | Path) -> Sensitivity:
    """Reads the evaluated runs in a folder.

    The metric is Recall@20 of runs on interactions and the click AUC of others. Runs that are
    not evaluated on the test split are left out; without any that denoises, nothing is compared.

    Args:
        grid: folder with a run's folder for each setting and seed, at any depth.

    Raises:
        ValueError: when the folder does not exist, or the runs differ in model, data or other
            options of the loss.
    """
    if not Path(grid).is_dir():
        raise ValueError(f"No folder {grid}: expected evaluated runs of pipelines.train.")
    runs = list(_runs(Path(grid)))
    found = Sensitivity("", [], {}, {})
    if all(loss["name"] == "ce" for _, _, loss, _ in runs):
        return found
    kinds = {kind for kind, *_ in runs}
    others = {loss["name"]: set[str]() for _, _, loss, _ in runs}
    for _, _, loss, _ in runs:
        fixed = {name: value for name, value in loss.items() if name not in _SWEPT}
        others[loss["name"]].add(json.dumps(fixed, sort_keys=True))
    if len(kinds) > 1 or any(len(options) > 1 for options in others.values()):
        raise ValueError(
            f"{grid} holds runs of several models, data or further options of the loss (models "
            f"{sorted({model for model, _ in kinds})}): they do not belong in one picture. Give "
            "a folder of runs that differ in loss.name, max_rate, num_steps, beta and seed alone."
        )
    for _, _, loss, point in runs:
        if loss["name"] == "ce":
            found.baseline.append(point)
        elif loss["name"] == "tce":
            key = (float(loss["max_rate"]), int(loss["num_steps"]))
            found.truncated.setdefault(key, []).append(point)
        else:
            found.reweighted.setdefault(float(loss["beta"]), []).append(point)
    return dataclasses.replace(found, metric=runs[0][1])


def _runs(grid: Path) -> Iterator[tuple[tuple[str, str], str, dict[str, Any], Point]]:
    """Yields model and data, metric, loss and result of every run evaluated on the test split."""
    from tfrec_feedback.losses import Reweighted, Truncated

    defaults = {
        "tce": _defaults(Truncated, ("max_rate", "num_steps")),
        "rce": _defaults(Reweighted, ("beta",)),
    }
    for path in sorted(grid.rglob("evaluation.json")):
        described = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
        report = json.loads(path.read_text(encoding="utf-8"))
        metric, measured = _measured(report)
        if report["split"] != "test" or measured["value"] is None:
            continue
        config = described["config"]
        given = {k: v for k, v in (config.get("loss") or {}).items() if v is not None}
        name = given.get("name", "ce")
        loss = {**defaults.get(name, {}), **given, "name": name}
        value = measured["value"]
        point = Point(value, *(_or(measured.get(end), value) for end in ("low", "high")))
        yield (config["model"]["name"], described["data_fingerprint"]), metric, loss, point


def _measured(report: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name of the metric that a report is read by, and what it says of it."""
    if "tasks" in report:
        return "click AUC", report["tasks"]["ctr"]["auc"]
    metrics = report["metrics"]
    name = _RANKING_METRIC if _RANKING_METRIC in metrics else next(iter(metrics))
    return name.replace("recall_", "Recall@").replace("ndcg_", "NDCG@"), metrics[name]


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _defaults(of: type, names: tuple[str, ...]) -> dict[str, Any]:
    parameters = inspect.signature(of).parameters
    return {name: parameters[name].default for name in names}
