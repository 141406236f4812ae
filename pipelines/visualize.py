"""Draws what a run has learned: `python -m pipelines.visualize --help`."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.console import reported_errors
from tfrec_feedback.data.manifest import load_manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfrec_feedback.interests import Interests


def main(
    run: Annotated[Path | None, typer.Option(help="Run folder of pipelines.train.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data; default: the run's own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where pictures go; default: RUN/pictures.")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(
            help="Folder of evaluated runs: memories of several sizes, or several losses."
        ),
    ] = None,
    requests: Annotated[
        int, typer.Option(min=1, help="Validation requests that interests are read from.")
    ] = 32768,
) -> None:
    """Draws interests before and after purification, in the memories and over training, as PNG.

    And what a denoising loss did to true and false clicks. What a run does not have is skipped.
    With --grid, draws test results by the size of the memories and by the options of denoising
    losses as well; --run is then not needed.
    """
    with reported_errors():
        folder = output or (run or grid or Path()) / "pictures"
        if run is None and grid is None:
            raise ValueError("Nothing to draw: give --run, --grid, or both.")
        console = Console()
        pictures: dict[str, Callable[[], Figure]] = {}
        if run is not None:
            pictures |= _of_interests(run, data, requests, console)
            pictures |= _of_denoising(run)
        if grid is not None:
            pictures |= _of_grid(grid)
        _draw(pictures, folder, console)


def _of_interests(
    run: Path, data: Path | None, requests: int, console: Console
) -> dict[str, Callable[[], Figure]]:
    from tfrec_feedback import pictures
    from tfrec_feedback.interests import load_snapshots

    try:
        interests = _read_interests(run, data, requests, console)
    except pictures.NothingToDrawError as reason:
        return dict.fromkeys(("purification", "long_term", "over_training"), partial(_skip, reason))
    return {
        "purification": lambda: pictures.purification(interests),
        "long_term": lambda: pictures.long_term(interests),
        "over_training": lambda: pictures.over_training(load_snapshots(run)),
    }


def _skip(reason: Exception) -> Figure:
    raise reason


def _of_denoising(run: Path) -> dict[str, Callable[[], Figure]]:
    from tfrec_feedback.denoising import pictures
    from tfrec_feedback.denoising.record import DenoisingRecord

    record = DenoisingRecord.load(run)
    drawn: dict[str, Callable[[], Figure]] = {}
    drawn["denoising_losses"] = partial(pictures.losses, record)
    if record is not None and record.loss == "tce":
        drawn["denoising_drops"] = partial(pictures.drops, record)
        drawn["denoising_groups"] = partial(pictures.groups, record)
    if record is not None and record.loss == "rce":
        drawn["denoising_weights"] = partial(pictures.weights, record)
    return drawn


def _of_grid(grid: Path) -> dict[str, Callable[[], Figure]]:
    from tfrec_feedback import pictures
    from tfrec_feedback.denoising import pictures as of_denoising
    from tfrec_feedback.denoising.grid import read_sensitivity

    values, found = grid_values(grid), read_sensitivity(grid)
    return {
        "sensitivity": lambda: pictures.sensitivity(values),
        "denoising_sensitivity": lambda: of_denoising.sensitivity(found),
    }


def _read_interests(run: Path, data: Path | None, requests: int, console: Console) -> Interests:
    from tfrec_feedback.data.dataset import check_shards, naming_damage, request_dataset
    from tfrec_feedback.interests import collect_interests
    from tfrec_feedback.pictures import NothingToDrawError
    from tfrec_feedback.runs import load_run

    model, description = load_run(run)
    if "return_interests" not in inspect.signature(model.call).parameters:
        raise NothingToDrawError("the model has no interests by feedback, as DFN and DUMN have")
    settings = description["config"]["data"]
    manifest = load_manifest(data or settings["directory"])
    if manifest.fingerprint != description["data_fingerprint"]:
        console.print("[yellow]These are not the data the run was trained on.[/yellow]")
    with tempfile.TemporaryDirectory() as scratch, console.status("reading interests ..."):
        paths = None
        if settings["skip_corrupt"]:
            paths, _ = check_shards(manifest, "validation", scratch=Path(scratch))
        dataset = request_dataset(
            manifest, "validation", 256, encoder=model.encoder, metadata=True, paths=paths
        )
        with naming_damage(manifest, "validation"):
            return collect_interests(model, dataset, requests)


def grid_values(grid: Path) -> dict[tuple[int, int], list[float]]:
    """Reads click AUCs of the evaluated runs in a folder, by `(memory_size, word_size)`.

    Runs that are unfinished, not evaluated on the test split or without a memory are left out.

    Args:
        grid: folder with a run's folder for each size and seed, at any depth.

    Raises:
        ValueError: when the folder does not exist, or its runs differ in model or data.
    """
    from tfrec_feedback.layers import UserMemory

    if not grid.is_dir():
        raise ValueError(f"No folder {grid}: expected the runs of benchmarks.sensitivity.")
    default = {k: p.default for k, p in inspect.signature(UserMemory).parameters.items()}
    values: dict[tuple[int, int], list[float]] = {}
    kinds: set[tuple[str, str]] = set()
    for path in sorted(grid.rglob("evaluation.json")):
        described = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
        report = json.loads(path.read_text(encoding="utf-8"))
        if not described.get("memory_health") or report["split"] != "test":
            continue
        if (auc := report["tasks"]["ctr"]["auc"]["value"]) is not None:
            kinds.add((described["config"]["model"]["name"], described["data_fingerprint"]))
            options = {**default, **(described["config"]["model"].get("user_memory") or {})}
            key = (int(options["memory_size"]), int(options["word_size"]))
            values.setdefault(key, []).append(auc)
    if len(kinds) > 1:
        names = sorted({name for name, _ in kinds})
        raise ValueError(
            f"{grid} holds runs of several models or data (models {names}): their AUCs do not "
            "belong in one picture. Give a folder of benchmarks.sensitivity."
        )
    return values


def _draw(pictures: dict[str, Callable[[], Figure]], folder: Path, console: Console) -> None:
    from tfrec_feedback.pictures import NothingToDrawError

    for name, draw in pictures.items():
        try:
            figure = draw()
        except NothingToDrawError as reason:
            console.print(f"[yellow]{name}.png skipped: {reason}.[/yellow]", soft_wrap=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=130)
        console.print(f"Written to {folder / f'{name}.png'}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
