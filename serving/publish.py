"""Which versions are served: list, promote, roll back, prune, write TensorFlow Serving's config.

python -m serving.publish promote models/dfn 12 --label stable
python -m serving.publish render models/dfn --output docker/models.config
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from serving import versions
from serving.versions import VersionError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Base = Annotated[Path, typer.Argument(help="Folder of the model's versions (MODEL_BASE).")]
Label = Annotated[str, typer.Option(help="stable or canary.")]


@contextlib.contextmanager
def _reported() -> Iterator[Console]:
    try:
        yield Console(soft_wrap=True)
    except (VersionError, OSError) as error:
        Console(stderr=True).print(
            f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


@app.command("list")
def show(base: Base) -> None:
    """Lists versions, labels, sizes and dates, the highest version first."""
    with _reported() as console:
        found, labels = versions.list_versions(base), versions.read_labels(base)
        table = Table(title=str(base), title_justify="left")
        for heading in ("version", "labels", "model", "MB", "published (UTC)", ""):
            table.add_column(heading, justify="right" if heading in ("version", "MB") else "left")
        for version in found:
            carried = [n for n, numbers in sorted(labels.items()) if numbers[0] == version.number]
            table.add_row(
                str(version.number),
                ", ".join(carried),
                version.model,
                f"{version.size / 1e6:,.1f}",
                f"{version.published:%Y-%m-%d %H:%M}",
                "" if version.complete else "incomplete",
            )
        console.print(table)
        missing = {v[0] for v in labels.values()} - {version.number for version in found}
        if missing:
            raise VersionError(f"Labels of {base} stand on versions that are gone: {missing}.")


@app.command()
def promote(
    base: Base, version: Annotated[int, typer.Argument(help="Its number.")], label: Label
) -> None:
    """Gives a version a label."""
    with _reported() as console:
        before = versions.read_labels(base).get(label, [None])[0]
        versions.promote(base, version, label)
        was = "" if before in (None, version) else f", which was version {before}"
        console.print(f"{label} is version {version}{was}", markup=False)


@app.command()
def rollback(base: Base, label: Label = "stable") -> None:
    """Gives a label back to the version that had it before."""
    with _reported() as console:
        before, now = versions.rollback(base, label)
        console.print(f"{label} is version {now} again, no more {before}", markup=False)


@app.command()
def prune(
    base: Base,
    keep: Annotated[int, typer.Option(min=1, help="How many of the highest complete ones stay.")],
) -> None:
    """Removes old versions; one with a label always stays."""
    with _reported() as console:
        removed = versions.prune(base, keep)
        console.print(f"Removed {removed}" if removed else "Nothing to remove", markup=False)


@app.command()
def render(
    base: Base,
    name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    base_path: Annotated[
        str | None, typer.Option(help="Where the server finds the folder; default: /models/NAME.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: stdout.")] = None,
) -> None:
    """Writes models.config: TensorFlow Serving then serves the labelled versions, by label.

    A request that names neither version nor label gets the highest of them: maybe the canary.
    """
    with _reported():
        known = {version.number for version in versions.list_versions(base)}
        labels = versions.read_labels(base)
        if gone := sorted({v[0] for v in labels.values()} - known):
            raise VersionError(
                f"Labels of {base} stand on versions that are gone: {gone}. Roll back, or promote "
                "others."
            )
        name = name or base.resolve().name
        text = versions.models_config(name, base_path or f"/models/{name}", labels)
        if output is None:
            typer.echo(text, nl=False)
        else:
            versions.write_file(output, text)


if __name__ == "__main__":
    app()
