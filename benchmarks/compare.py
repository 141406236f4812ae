"""Compares models of a study in pairs, on the same exposures, seed by seed.

python -m benchmarks.compare --study runs/study/kuairand-pure --pairs dumn:dfn
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from pipelines.console import reported_errors
from pipelines.evaluate import score_with_progress
from tfrec_feedback.evaluation import compare


def main(
    study: Annotated[Path, typer.Option(help="Folder of benchmarks.study: MODEL-SEED runs.")],
    pairs: Annotated[str, typer.Option(help="MODEL:BASELINE pairs, separated by commas.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each model.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests a batch of scoring.")] = 1024,
) -> None:
    """Prints, for each pair and seed, what the first model has over the second."""
    console = Console()
    scored: dict[Path, Any] = {}
    with reported_errors():
        lines = [
            "| pair | task | AUC difference by seed | DeLong p by seed | "
            "GAUC difference by seed (95 % interval) |",
            "|---|---|---|---|---|",
        ]
        for pair in pairs.split(","):
            name, _, baseline = pair.partition(":")
            reports = []
            for seed in range(seeds):
                for model in (name, baseline):
                    run = study / f"{model}-{seed}"
                    if run not in scored:
                        scored[run], _ = score_with_progress(
                            run, "test", console, batch_size=batch_size
                        )
                a, b = (scored[study / f"{model}-{seed}"] for model in (name, baseline))
                reports.append(compare(a, b))
            lines += [row(pair, task, [r[task] for r in reports]) for task in reports[0]]
    typer.echo("\n".join(lines))


def row(pair: str, task: str, reports: list[dict[str, Any]]) -> str:
    """Returns a line of the table: one pair and task, all seeds."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None or not np.isfinite(value) else format(value, form)

    def p_value(value: float | None) -> str:
        return "< 0.001" if value is not None and value < 0.001 else number(value, ".3f")

    grouped = [
        f"{number(g['value'], '+.4f')} ({number(g['low'], '+.4f')} to {number(g['high'], '+.4f')})"
        for g in (report["gauc_difference"] for report in reports)
    ]
    cells = [
        ", ".join(number(report["auc_difference"], "+.4f") for report in reports),
        ", ".join(p_value(report["p_value"]) for report in reports),
        ", ".join(grouped),
    ]
    return f"| `{pair}` | {task} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    typer.run(main)
