"""What truncated and reweighted losses did to false positives, from the runs of a study.

    python -m benchmarks.denoising_quality runs/denoising/ml-100k

Reads what `benchmarks.denoising` and `benchmarks.denoising_truth` have left; trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipelines.console import reported_errors
from tfrec_feedback.denoising.analysis import Quality, overall
from tfrec_feedback.denoising.record import RECORD_FILE, DenoisingRecord

COLUMNS = {
    "dropped": "of clicks dropped, recall of random",
    "recall": "recall",
    "precision": "precision",
    "random_precision": "of random",
    "loss_true": "loss, true",
    "loss_false": "loss, false",
    "weight_true": "weight, true",
    "weight_false": "weight, false",
}


def main(
    study: Annotated[Path, typer.Argument(help="Folder of a study: MODEL/LOSS-SEED inside.")],
    fewest: Annotated[int, typer.Option(help="Only settings with so many seeds.")] = 2,
) -> None:
    """Prints, for every loss that ran with several seeds, what it did to false positives."""
    with reported_errors():
        settings = {name: runs for name, runs in found_runs(study).items() if len(runs) >= fewest}
        if not settings:
            raise FileNotFoundError(
                f"expected {RECORD_FILE} in runs MODEL/LOSS-SEED of {study}, {fewest} seeds or "
                "more of a loss; run benchmarks.denoising or benchmarks.denoising_truth first"
            )
        typer.echo(markdown({name: qualities(runs) for name, runs in settings.items()}))


def found_runs(study: Path) -> dict[tuple[str, str], list[Path]]:
    """Returns the runs of each model and loss that kept diagnostics, in order of their seeds."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(study.glob(f"*/*/{RECORD_FILE}")):
        label, _, seed = path.parent.name.rpartition("-")
        if seed.isdigit():
            found.setdefault((path.parent.parent.name, label), []).append(path.parent)
    return found


def qualities(runs: Sequence[Path]) -> list[Quality]:
    """Returns the quality over all of training, run by run."""
    records = [DenoisingRecord.load(run) for run in runs]
    return [overall(record.series) for record in records if record is not None]


def markdown(found: dict[tuple[str, str], list[Quality]]) -> str:
    """Returns the table: means over seeds, and the deviation of what is compared with chance."""
    lines = [
        "| model | loss | seeds | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for (model, label), seeds in found.items():
        cells = []
        for name in COLUMNS:
            values = np.array([getattr(of, name) for of in seeds], np.float64)
            spread = name in ("recall", "precision")
            if np.isnan(values).any() or (spread and not any(of.dropped for of in seeds)):
                cells.append("-")
            else:
                cells.append(f"{values.mean():.4f}" + f" ± {values.std():.4f}" * spread)
        lines.append(f"| `{model}` | {label} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
