"""Trains a model: `python -m pipelines.train --help`."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.console import progress_bar, reported_errors
from tfrec_feedback.config import Config, DataConfig, load_config
from tfrec_feedback.data.manifest import MANIFEST_FILE, Manifest, load_manifest

if TYPE_CHECKING:
    from tfrec_feedback.denoising.analysis import GroupCounts
    from tfrec_feedback.training import TrainingResult

SIMULATED = Path(__file__).parent / "configs" / "simulated.toml"
"""Configuration of the simulated log, the default of `train` and `run`."""

_REMEDY = (
    "--model dumn_learned_strength, or --set model.user_memory.key_strength=learned with another "
    "model"
)


def main(
    config: Annotated[Path | None, typer.Option(help="TOML file; see pipelines/configs.")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared data (data.directory).")] = None,
    model: Annotated[str | None, typer.Option(help="Model name (model.name).")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; default: runs/MODEL-TIME.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="Override, e.g. train.epochs=2; repeatable.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Same numbers in every run, slower.")
    ] = False,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Skip and count damaged records.")
    ] = False,
) -> None:
    """Trains a model on prepared data; without arguments, DFN on a simulated log.

    An interrupted run goes on where it stopped when it is started again with the same --output.
    """
    with reported_errors():
        overrides = [*(set or [])]
        overrides += [f"data.directory={_quoted(data)}"] if data else []
        overrides += [f"model.name={_quoted(model)}"] if model else []
        overrides += ["train.deterministic=true"] if deterministic else []
        overrides += ["data.skip_corrupt=true"] if skip_corrupt else []
        if config is None and data is None:
            config = SIMULATED
        resolved = load_config(config, overrides)
        console = Console()
        manifest = load_or_simulate(resolved.data.directory, console)
        run = output or Path("runs") / f"{resolved.model.name}-{_now()}"
        train_with_progress(resolved, manifest, run, console)


def load_or_simulate(directory: str, console: Console) -> Manifest:
    """Loads prepared data; the default folder is filled with a simulated log when it is empty."""
    is_default = directory == DataConfig().directory
    if is_default and not (Path(directory) / MANIFEST_FILE).is_file():
        from tfrec_feedback.data.prepare import prepare
        from tfrec_feedback.data.sources import load_source

        console.print(f"{directory} holds no data: simulating a feedback log into it ...")
        prepare(load_source("simulated"), Path(directory))
    return load_manifest(directory)


def train_with_progress(
    config: Config, manifest: Manifest, run: Path, console: Console
) -> TrainingResult:
    """Trains with a progress display, and says where the run is.

    Args:
        config: the run's configuration.
        manifest: prepared data.
        run: the run's folder.
        console: where to print.
    """
    import tensorflow as tf

    from tfrec_feedback.training import train

    with progress_bar(console) as progress:

        class Display(tf.keras.callbacks.Callback):
            """One bar an epoch, one line of metrics when it is validated."""

            def on_plan(self, num_batches: int) -> None:
                self._total = num_batches

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self._task = progress.add_task(f"epoch {epoch + 1}", total=self._total, status="")
                self._seen = 0

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                loss = (logs or {})["total_loss"]
                taken, self._seen = batch + 1 - self._seen, batch + 1
                progress.update(self._task, advance=taken, status=f"loss {loss:.4f}")

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                progress.update(self._task, completed=self._total, status="validating ...")

            def on_validation(self, epoch: int, results: dict[str, float]) -> None:
                # A line of its own: beside the bar it would push the bar off a narrow screen.
                parts = [f"{name} {value:.4f}" for name, value in results.items()]
                progress.update(self._task, status="")
                console.print(f"epoch {epoch + 1}: {', '.join(parts)}", soft_wrap=True)

            def on_diagnostics(self, epoch: int, groups: dict[str, GroupCounts]) -> None:
                warn_of_eaten_groups(epoch, groups, console)

        result = train(config, manifest, run, callbacks=[Display()])
    if result.skipped_records:
        console.print(f"[yellow]{result.skipped_records:,} damaged records skipped.[/yellow]")
    best = result.history[result.best_epoch]
    console.print(
        f"Best epoch {result.best_epoch + 1} by {result.monitor} {best[result.monitor]:.4f}. "
        f"The run is in {run}",
        soft_wrap=True,
    )
    if result.memory_health:
        _print_memory_health(result, console)
    return result


def warn_of_eaten_groups(epoch: int, groups: dict[str, GroupCounts], console: Console) -> None:
    """Says which users and items a truncated loss takes too many clicks from.

    Args:
        epoch: counted from 0.
        groups: what they lost in it, as `DenoisingRecorder.on_epoch` returns.
        console: where to print.
    """
    from tfrec_feedback.denoising.analysis import eaten_groups

    for group in eaten_groups(groups):
        message = (
            f"epoch {epoch + 1}: truncation drops {group.share:.0%} of the clicks of the "
            f"{group.name} {group.kind} (up to {group.largest:,} clicks each), {group.overall:.0%} "
            "of all clicks. It may take their rarity for a mistake. Lower loss.max_rate, set "
            "loss.drop_base=positives, or lower loss.max_positive_fraction."
        )
        console.print(f"[yellow]{message}[/yellow]", soft_wrap=True)


def _print_memory_health(result: TrainingResult, console: Console) -> None:
    from tfrec_feedback.interests import collapsed

    console.print(memory_table(result.memory_health))
    names = collapsed(result.memory_health)
    if not names:
        return
    message = (
        f"The memory of {', '.join(names)} has collapsed to one vector: every user reads the same."
    )
    if result.model.user_memory.memories[0].key_strength == 1.0:
        message += f" The printed key strength of 1.0 does this. Try {escape(_REMEDY)}."
    console.print(f"[yellow]{message}[/yellow]", soft_wrap=True)


def memory_table(health: dict[str, dict[str, float]]) -> Table:
    """Lays out `tfrec_feedback.interests.memory_health`: a row a feedback."""
    table = Table(title="memory health")
    table.add_column("feedback")
    for heading in ("slots alike", "reads alike", "read entropy", "slots in use", "requests"):
        table.add_column(heading, justify="right")
    for name, measured in health.items():
        table.add_row(
            name,
            f"{measured['slot_cosine']:.4f}",
            f"{measured['read_cosine']:.6f}",
            f"{measured['read_entropy']:.4f}",
            f"{measured['slots_in_use']:.1%}",
            f"{measured['requests']:,.0f}",
        )
    table.caption = "Alike: mean cosine of two slots, or of what two requests read; 1 is the same."
    return table


def _quoted(text: object) -> str:
    """Returns TOML text: a folder called 2024-01-01 would be read as a date."""
    return json.dumps(str(text), ensure_ascii=False)


def _now() -> str:
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


if __name__ == "__main__":
    typer.run(main)
