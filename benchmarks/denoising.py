r"""Cross entropy, truncated and reweighted, on interactions: tables of the ADT paper.

    python -m pipelines.prepare --source adt-ratings \
        --input $FEEDBACK_DATA/ml-100k --output data/ml-100k
    python -m benchmarks.denoising --data data/ml-100k

Options of a loss are chosen on the validation split, with one seed, among drop rates and exponents
of the paper's grid and ramps as long as runs are here; every model then runs with all seeds. Test
items are ranked by those runs alone, unless `--sensitivity` asks for the others once the choice is
made. Finished runs are kept.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.loss_study import LossStudy, Setting
from pipelines.console import reported_errors
from tfrec_feedback.data.manifest import load_manifest

CUTOFFS = (5, 20, 50)
METRICS = tuple(f"{metric}_{k}" for k in CUTOFFS for metric in ("recall", "ndcg"))
RATES, BETAS = (0.05, 0.1, 0.2), (0.05, 0.1, 0.2, 0.5)
STEPS = {"gmf": (1_000, 5_000), "neumf": (1_000, 5_000), "cdae": (100, 500)}
"""Ramps that end within the runs: an epoch has 156 steps, of CDAE 30."""
OF_MODEL = {
    "neumf": ("train.patience=3",),
    "cdae": ("data.batch_size=32", "optimizer.learning_rate=0.005", "train.patience=3"),
}
"""Settings a model needs beside the shared ones: batches of CDAE are users."""


def grid(model: str) -> Iterator[Setting]:
    """Yields the settings that are tried."""
    yield Setting("ce")
    for rate, steps in itertools.product(RATES, STEPS[model]):
        yield Setting("tce", (f"loss.max_rate={rate}", f"loss.num_steps={steps}"))
    for beta in BETAS:
        yield Setting("rce", (f"loss.beta={beta}",))


def main(
    data: Annotated[Path, typer.Option(help="Prepared interactions.")],
    config: Annotated[Path, typer.Option(help="TOML file all runs share.")] = Path(
        "pipelines/configs/adt_ml100k.toml"
    ),
    models: Annotated[str, typer.Option(help="Recommenders.")] = "gmf,neumf,cdae",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each.")] = 5,
    output: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/denoising"),
    sensitivity: Annotated[
        bool, typer.Option(help="Rank test items by every setting tried, for visualize --grid.")
    ] = False,
    set: Annotated[list[str] | None, typer.Option(help="Override; repeatable.")] = None,
) -> None:
    """Compares losses on one prepared data set, each with options chosen on validation."""
    console = Console()
    with reported_errors():
        manifest = load_manifest(data)
        folder = output / data.name
        rows: list[dict[str, Any]] = []
        for model in models.split(","):
            shared = [f"data.directory={data}", f"model.name={model}", *OF_MODEL.get(model, ())]
            study = LossStudy(manifest, config, [*shared, *(set or [])], folder / model, console)
            for setting in study.choose(grid(model)).values():
                found = [ranked(study, setting, seed) for seed in range(seeds)]
                values = {name: np.stack([of[name] for of in found]) for name in METRICS}
                rows.append({"model": model, "setting": setting, "values": values})
            # Only once the choice is made.
            for setting in grid(model) if sensitivity else ():
                ranked(study, setting, 0)
        table = markdown(rows)
    typer.echo(table)
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")


def ranked(study: LossStudy, setting: Setting, seed: int) -> dict[str, np.ndarray]:
    """Returns every user's test metrics by a run, `[U]` each, ranking now if they are missing."""
    from tfrec_feedback.data.interaction_dataset import load_interactions
    from tfrec_feedback.full_ranking import per_user, rank_catalogue, ranking_report
    from tfrec_feedback.runs import load_run

    run = study.run(setting, seed)
    path = run / "test_users.npz"
    if not path.is_file():
        study.trained(setting, seed)
        model, _ = load_run(run)
        table = load_interactions(study.manifest)
        found = rank_catalogue(model, table, "test", max(CUTOFFS))
        report = {"split": "test", **ranking_report(found, table.activity, CUTOFFS)}
        text = json.dumps(report, indent=2) + "\n"
        (run / "evaluation.json").write_text(text, encoding="utf-8")
        np.savez(path, **per_user(found, CUTOFFS))
    with np.load(path) as values:
        return dict(values)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the table: mean over seeds, their deviation, and the difference to cross entropy.

    The difference is that of each user's mean over seeds, with the p-value of a sign-flip test
    over users.

    Args:
        rows: `model`, `setting`, and `values`: of every metric `[seeds, U]`. Cross entropy of a
            model stands before its other losses.
    """
    from tfrec_feedback.metrics import mean_interval, paired_user_test

    headings = [name.replace("recall_", "R@").replace("ndcg_", "N@") for name in METRICS]
    lines = ["| model | loss | " + " | ".join(headings) + " |", "|---" * (len(headings) + 2) + "|"]
    base: dict[str, np.ndarray] = {}
    for row in rows:
        cells = []
        values = {name: found.mean(axis=0) for name, found in row["values"].items()}
        base = values if row["setting"].loss == "ce" else base
        for name in METRICS:
            deviation = row["values"][name].mean(axis=1).std()
            interval = mean_interval(values[name])
            text = f"{interval.value:.4f} ± {deviation:.4f} ({interval.low:.4f} to "
            text += f"{interval.high:.4f})"
            if values is not base:
                test = paired_user_test(values[name], base[name])
                text += f", {test.difference:+.4f} (p = {test.p_value:.3f})"
            cells.append(text)
        lines.append(f"| `{row['model']}` | {row['setting'].label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
