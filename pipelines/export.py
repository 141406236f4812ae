"""Publishes a run for serving: `python -m pipelines.export --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.console import reported_errors


def main(
    run: Annotated[Path, typer.Option(help="Run folder of pipelines.train.")],
    output: Annotated[Path, typer.Option(help="Folder of the model's versions (MODEL_BASE).")],
    version: Annotated[
        int | None, typer.Option(help="Version number; default: seconds since 1970.")
    ] = None,
) -> None:
    """Writes a run's model as a SavedModel version: all at once, or not at all."""
    with reported_errors():
        from tfrec_feedback.export import export_run

        published = export_run(run, output, version)
        Console().print(f"Published {published}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
