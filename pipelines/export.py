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
    top_k: Annotated[
        int, typer.Option(min=1, help="Items that a recommender's top_k signature names.")
    ] = 100,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Turn scores of a model trained with loss.name=rce into click rates.",
        ),
    ] = False,
    synthetic_golden: Annotated[
        bool,
        typer.Option(
            "--synthetic-golden",
            help="Make all golden requests up: no request of the test split is published.",
        ),
    ] = False,
) -> None:
    """Writes a run's model as a SavedModel version: all at once, or not at all.

    Beside the model stand the requests that TensorFlow Serving warms up with, and golden requests
    with their expected scores, which `python -m serving.skew` sends to a server.
    """
    with reported_errors():
        from tfrec_feedback.export import export_run

        published = export_run(run, output, version, top_k, calibrate, synthetic_golden)
        Console().print(f"Published {published}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
