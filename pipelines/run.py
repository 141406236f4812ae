"""The whole road in one command, on a simulated log: `python -m pipelines.run --help`."""

from __future__ import annotations

import datetime
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.console import metrics_table, reported_errors
from pipelines.evaluate import evaluate_with_progress
from pipelines.score import ranking_table
from pipelines.train import SIMULATED, load_or_simulate, train_with_progress
from serving.client import FeedbackClient
from serving.client_requests import readable, record_labels
from serving.records import num_candidates, parse_record, read_records
from tfrec_feedback.config import load_config
from tfrec_feedback.data.manifest import Manifest


def main(
    config: Annotated[Path | None, typer.Option(help="TOML file; see pipelines/configs.")] = None,
    models: Annotated[Path, typer.Option(help="Where versions are published.")] = Path("models"),
    set: Annotated[
        list[str] | None, typer.Option(help="Override, e.g. train.epochs=2; repeatable.")
    ] = None,
) -> None:
    """Prepares, trains, evaluates, publishes, serves and scores: DFN on a simulated log."""
    console = Console()
    with reported_errors():
        resolved = load_config(config or SIMULATED, set or [])
        console.rule("1. Prepare: raw log to requests")
        manifest = load_or_simulate(resolved.data.directory, console)
        console.print(_describe(manifest))
        console.rule("2. Train")
        name = datetime.datetime.now().strftime(f"{resolved.model.name}-%Y%m%d-%H%M%S")
        run = Path("runs") / name
        train_with_progress(resolved, manifest, run, console)
        console.rule("3. Evaluate")
        report = evaluate_with_progress(run, "test", console)
        console.print(metrics_table(report, f"test split of {manifest.source}"))
        console.rule("4. Publish")
        from tfrec_feedback.export import export_run

        published = export_run(run, models / resolved.model.name)
        console.print(f"Published {published}", soft_wrap=True)
        console.rule("5. Serve, and score one request over gRPC")
        _serve_and_score(published, manifest, console)


def _describe(manifest: Manifest) -> str:
    parts = [
        f"{split.requests:,} requests with {split.candidates:,} candidates to {name}"
        for name, split in manifest.splits.items()
    ]
    return f"{manifest.directory} ({manifest.source}): " + ", ".join(parts)


def _serve_and_score(published: Path, manifest: Manifest, console: Console) -> None:
    """Starts the embedded server, ranks the longest of the first test requests, stops it."""
    base, model = published.parent, published.parent.name
    command = [sys.executable, "-m", "serving.server", "--model-base-path", str(base)]
    command += ["--version", published.name, "--model-name", model, "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                log.seek(0)
                raise RuntimeError(f"The server did not start: {log.read().strip()}")
            target = json.loads(line)["target"]
            record = _example_record(manifest)
            with FeedbackClient(target, model, timeout=30.0) as client:
                (scores,) = client.rank_examples([record])
            user = readable(parse_record(record)["user_key"][0])
            console.print(
                ranking_table(record_labels(record), scores, title=f"user {user} at {target}")
            )
        finally:
            server.terminate()
            server.wait(timeout=60)


def _example_record(manifest: Manifest) -> bytes:
    """Returns the record with the most candidates among the first hundred of the test split."""
    records = itertools.islice(read_records(manifest.shard_paths("test")[0]), 100)
    return max(records, key=num_candidates)


if __name__ == "__main__":
    typer.run(main)
