"""Cross entropy, truncated and reweighted, on a simulated log whose false clicks are known.

    python -m pipelines.prepare --source simulated --output data/simulated
    python -m benchmarks.denoising_truth --data data/simulated

Judges a model by what the log does not say: whether the user would have been glad of what was
shown. Options of a loss are chosen by click AUC on the validation split, as on a real log.
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
from tfrec_feedback.data.manifest import Manifest, load_manifest

RATES, STEPS = (0.05, 0.1, 0.2), (500, 2_000)
BETAS = (0.1, 0.25, 0.5)
COLUMNS = ("satisfied", "click")
OF_MODEL = {"dfn": ("model.num_heads=2", "model.dislike_head=true")}
"""Settings a model needs beside the shared ones."""


def grid() -> Iterator[Setting]:
    """Yields the settings that are tried."""
    yield Setting("ce")
    for rate, steps in itertools.product(RATES, STEPS):
        yield Setting("tce", (f"loss.max_rate={rate}", f"loss.num_steps={steps}"))
    for beta in BETAS:
        yield Setting("rce", (f"loss.beta={beta}",))


def main(
    data: Annotated[Path, typer.Option(help="Prepared simulated log.")],
    config: Annotated[Path, typer.Option(help="TOML file all runs share.")] = Path(
        "pipelines/configs/simulated_denoising.toml"
    ),
    models: Annotated[str, typer.Option(help="Models.")] = "gmf,dfn",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of each.")] = 3,
    output: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/denoising"),
    set: Annotated[list[str] | None, typer.Option(help="Override; repeatable.")] = None,
) -> None:
    """Compares losses by the AUC against what users would have been glad of."""
    console = Console()
    with reported_errors():
        manifest = load_manifest(data)
        rows = []
        for model in models.split(","):
            shared = [f"data.directory={data}", f"model.name={model}", *OF_MODEL.get(model, ())]
            folder = output / data.name / model
            study = LossStudy(manifest, config, [*shared, *(set or [])], folder, console)
            for setting in study.choose(grid()).values():
                found = [judged(study, setting, seed) for seed in range(seeds)]
                rows.append({"model": model, "setting": setting, "seeds": found})
        table = markdown(rows)
    typer.echo(table)
    (output / data.name / "truth.md").write_text(table + "\n", encoding="utf-8")


def judged(study: LossStudy, setting: Setting, seed: int) -> dict[str, float]:
    """Returns test AUCs of a run against truth and clicks, computing them if they are missing."""
    from tfrec_feedback.runs import load_run

    path = study.run(setting, seed) / "truth.json"
    if not path.is_file():
        study.trained(setting, seed)
        model, _ = load_run(study.run(setting, seed))
        path.write_text(json.dumps(truth_auc(model, study.manifest)), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def truth_auc(model: Any, manifest: Manifest) -> dict[str, float]:
    """Returns AUCs of the click logit against satisfaction and against clicks, on test.

    Args:
        model: a trained model.
        manifest: of the simulated log, whose truth lies beside the shards.
    """
    import pandas as pd

    from tfrec_feedback import metrics
    from tfrec_feedback.data.dataset import request_dataset
    from tfrec_feedback.data.records import REQUEST_ID
    from tfrec_feedback.evaluation import scoring_function

    score, parts = scoring_function(model), []
    for features, labels, _, identity in request_dataset(manifest, "test", 256, metadata=True):
        size = features["num_candidates"].numpy()
        valid = np.arange(features["item_id"].shape[1])[None] < size[:, None]
        ids = [text.decode() for text in identity[REQUEST_ID].numpy()]
        columns = {
            "request_id": np.repeat(ids, size),
            "item_id": features["item_id"].numpy()[valid],
            "click": labels["ctr"].numpy()[valid],
            "logit": score(features)["ctr"].numpy()[valid],
        }
        parts.append(pd.DataFrame(columns))
    scored = pd.concat(parts)
    truth = pd.read_parquet(manifest.directory / "truth.parquet")
    truth["request_id"] = truth["request_id"].astype(str)
    joined = scored.merge(truth, on=["request_id", "item_id"], validate="one_to_one")
    if len(joined) != len(scored):
        raise ValueError(f"{len(scored) - len(joined)} exposures have no truth: another log?")
    return {
        "satisfied": metrics.auc(joined["satisfied"].astype(int), joined["logit"]),
        "click": metrics.auc(joined["click"], joined["logit"]),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the table: mean over seeds, their deviation, and the difference seed by seed.

    Args:
        rows: `model`, `setting` and `seeds`; cross entropy of a model stands first.
    """
    headings = [f"AUC, {name}" for name in COLUMNS] + ["less ce, seed by seed"]
    lines = ["| model | loss | " + " | ".join(headings) + " |", "|---" * 5 + "|"]
    base: list[dict[str, float]] = []
    for row in rows:
        found = row["seeds"]
        base = found if row["setting"].loss == "ce" else base
        cells = []
        for name in COLUMNS:
            values = [of[name] for of in found]
            cells.append(f"{np.mean(values):.4f} ± {np.std(values):.4f}")
        pairs = zip(found, base, strict=True)
        steps = [f"{of['satisfied'] - than['satisfied']:+.4f}" for of, than in pairs]
        cells.append("-" if found is base else ", ".join(steps))
        lines.append(f"| `{row['model']}` | {row['setting'].label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
