"""Scores requests with a running server and prints each one's ranking.

python -m pipelines.score --target localhost:8500 --model dfn --requests requests.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from serving.client import FeedbackClient, Scores, ServingError
from serving.client_requests import Candidates, load_requests, ranking, record_labels
from serving.records import read_records
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Schema, SchemaError


def ranking_table(
    candidates: Candidates, scores: Scores, top: int | None = None, title: str | None = None
) -> Table:
    """Returns a table of the candidates, best `ctr` first.

    Example:
        >>> import numpy as np
        >>> table = ranking_table([11, 13], {"ctr": np.array([0.2, 0.7])})
        >>> table.row_count
        2
    """
    table = Table(title=title, title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("candidate")
    for task in scores:
        table.add_column(task, justify="right")
    for row in ranking(candidates, scores, top):
        values = [f"{row[task]:.4f}" for task in scores]
        # Square brackets in a label would be read as rich's own markup.
        table.add_row(str(row["rank"]), str(row["candidate"]).replace("[", r"\["), *values)
    return table


def _score(client: FeedbackClient, path: Path) -> list[tuple[Candidates, Scores]]:
    if path.suffix == ".tfrecord" and path.is_file():
        records = list(read_records(path))
        if not records:
            raise RequestError(f"{path} holds no requests.")
        labels: list[Candidates] = [record_labels(r, index) for index, r in enumerate(records)]
        return list(zip(labels, client.rank_examples(records), strict=True))
    requests = load_requests(path)
    scores = client.rank_many(requests)
    return [(r["candidates"], s) for r, s in zip(requests, scores, strict=True)]


def main(
    requests: Annotated[Path, typer.Option(help="Requests: .json, .jsonl or .tfrecord.")],
    model: Annotated[str, typer.Option(help="Name the model is served under.")] = "dfn",
    target: Annotated[str, typer.Option(help="host:port of the server.")] = "localhost:8500",
    schema: Annotated[
        Path | None, typer.Option(help="schema.json of the model; default: ask the server.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates to print a request.")] = 10,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for all requests.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a request.")] = False,
) -> None:
    """Scores requests with a running server and prints each one's candidates, best first."""
    try:
        known = Schema.from_json(schema) if schema else None
        with FeedbackClient(target, model, known, timeout=timeout) as client:
            answers = _score(client, requests)
    except (RequestError, SchemaError, ServingError) as error:
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1 if isinstance(error, ServingError) else 2) from error
    for index, (candidates, scores) in enumerate(answers):
        if as_json:
            line = {"request": index, "ranking": ranking(candidates, scores, top)}
            typer.echo(json.dumps(line))
        else:
            Console().print(ranking_table(candidates, scores, top, f"Request {index}"))


if __name__ == "__main__":
    typer.run(main)
