"""Scores requests with a running server and prints each one's ranking.

python -m pipelines.score --target localhost:8500 --model dfn --requests requests.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from serving.client import FeedbackClient, Scores, ServingError
from serving.records import num_candidates, parse_record, read_records
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Schema, SchemaError

Candidates = Mapping[str, Sequence[Any]] | Sequence[Any]


def load_requests(path: Path) -> list[Any]:
    """Reads requests from a `.json` file (one, or a list) or a `.jsonl` file (one a line).

    Raises:
        RequestError: for a file that is missing, empty or no JSON, naming the line.
    """
    if not path.is_file():
        raise RequestError(f"No file {path}: expected requests as .json, .jsonl or .tfrecord.")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error}.") from error
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), 1)
        requests = [_parse(path, line, number) for number, line in lines if line.strip()]
    else:
        parsed = _parse(path, text, 1)
        requests = parsed if isinstance(parsed, list) else [parsed]
    if not requests:
        raise RequestError(f"{path} holds no requests.")
    return requests


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1}, column {error.colno}"
        raise RequestError(f"{path}, {where}: not valid JSON: {error.msg}.") from error


def candidate_labels(candidates: Candidates) -> list[Any]:
    """Returns what to call each candidate: its `item_id`, or else its first feature.

    Args:
        candidates: columns, rows (as in a request), or the labels themselves.
    """
    if isinstance(candidates, Mapping):
        return list(candidates.get("item_id", next(iter(candidates.values()), ())))
    return [
        candidate.get("item_id", next(iter(candidate.values()), None))
        if isinstance(candidate, Mapping)
        else candidate
        for candidate in candidates
    ]


def ranking(candidates: Candidates, scores: Scores, top: int | None = None) -> list[dict[str, Any]]:
    """Returns the candidates by falling `ctr` (or first task), ties in the order given.

    Args:
        candidates: N candidates, as `candidate_labels` takes them.
        scores: `[N]` a task.
        top: how many of the best to keep; all when left out.

    Returns:
        Mappings with `rank` (from 1), `candidate` and the score of every task.
    """
    labels = candidate_labels(candidates)
    first = scores["ctr"] if "ctr" in scores else next(iter(scores.values()))
    order = np.argsort(-np.asarray(first), kind="stable")[:top]
    return [
        {"rank": rank, "candidate": readable(labels[n])}
        | {task: float(values[n]) for task, values in scores.items()}
        for rank, n in enumerate(order.tolist(), 1)
    ]


def readable(label: Any) -> Any:
    """Returns text where bytes stand for it."""
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else label


def ranking_table(
    candidates: Candidates, scores: Scores, top: int | None = None, title: str | None = None
) -> Table:
    """Returns a table of the candidates, best `ctr` first.

    Example:
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


def record_labels(record: bytes, index: int = 0) -> list[Any]:
    """Returns the `item_id`s of a record where it has one a candidate, else their positions."""
    count = num_candidates(record, index)
    items: list[Any] = list(parse_record(record, index).get("item_id", []))
    return items if len(items) == count else [f"#{n}" for n in range(count)]


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
