"""Trains a model with memories of several sizes and tabulates its click AUC: the paper's figure 2.

    python -m benchmarks.sensitivity --data data/kuairand-pure \
        --config pipelines/configs/kuairand_dumn.toml

Finished runs are kept and not repeated; an interrupted one goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.study import report_of_run
from pipelines.console import reported_errors
from tfrec_feedback.config import Config, load_config


def main(
    data: Annotated[Path, typer.Option(help="Prepared data, with samples.")],
    config: Annotated[Path | None, typer.Option(help="TOML file all runs share.")] = None,
    model: Annotated[str, typer.Option(help="A model with a memory.")] = "dumn",
    sizes: Annotated[str, typer.Option(help="Memory slots M, separated by commas.")] = "16,64,256",
    words: Annotated[str, typer.Option(help="Word sizes W, separated by commas.")] = "16,64,256",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each size.")] = 1,
    output: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/sensitivity"),
    set: Annotated[list[str] | None, typer.Option(help="Override; repeatable.")] = None,
) -> None:
    """Compares memories of M slots, W wide: same settings, same data."""
    console = Console()
    values: dict[tuple[int, int], list[float]] = {}
    with reported_errors():
        overrides = [*(set or []), f"data.directory={data}", f"model.name={model}"]
        for size in _numbers("--sizes", sizes):
            for width in _numbers("--words", words):
                for seed in range(seeds):
                    settings = load_config(config, [*overrides, f"train.seed={seed}"])
                    run = output / data.name / f"{model}-{size}x{width}-{seed}"
                    report = report_of_run(run, resized(settings, size, width), console)
                    found = report["tasks"]["ctr"]["auc"]["value"]
                    values.setdefault((size, width), []).append(np.nan if found is None else found)
    table = markdown(values)
    typer.echo(table)
    (output / data.name / "table.md").write_text(table + "\n", encoding="utf-8")
    typer.echo(f"Draw it: python -m pipelines.visualize --grid {output / data.name}")


def resized(config: Config, size: int, width: int) -> Config:
    """Returns a configuration with memories of another size; other options of theirs stay."""
    options = getattr(config.model, "user_memory", None) or {}
    memory = {**options, "memory_size": size, "word_size": width}
    return config.model_copy(
        update={"model": config.model.model_copy(update={"user_memory": memory})}
    )


def markdown(values: dict[tuple[int, int], list[float]]) -> str:
    """Returns a table of mean click AUC over seeds: a row a word size, a column a memory size.

    Args:
        values: click AUCs, one a seed, by `(memory_size, word_size)`.
    """
    sizes, words = (list(dict.fromkeys(key[axis] for key in values)) for axis in (0, 1))
    lines = ["| click AUC | " + " | ".join(f"M = {size}" for size in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for width in words:
        cells = [_cell(values[size, width]) for size in sizes]
        lines.append(f"| W = {width} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: list[float]) -> str:
    spread = f" ± {np.std(found):.4f}" if len(found) > 1 else ""
    return f"{np.mean(found):.4f}{spread}"


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(f"{option}: expected numbers such as 16,64,256, got {text!r}.")
    return [int(part) for part in parts]


if __name__ == "__main__":
    typer.run(main)
