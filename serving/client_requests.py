"""Requests in files, and rankings as people read them. Needs numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.batching import Scores
from serving.records import num_candidates, parse_record
from tfrec_feedback.requests import RequestError

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
        requests = [parse_json(line, str(path), number) for number, line in lines if line.strip()]
    else:
        parsed = parse_json(text, str(path))
        requests = parsed if isinstance(parsed, list) else [parsed]
    if not requests:
        raise RequestError(f"{path} holds no requests.")
    return requests


def parse_json(text: str, source: str, line: int = 1) -> Any:
    """Parses JSON written by a person.

    Args:
        text: the JSON.
        source: what to call it in the error.
        line: number of its first line there.

    Raises:
        RequestError: naming line and column.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1}, column {error.colno}"
        raise RequestError(f"{source}, {where}: not valid JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # nested, or a number, beyond Python's limits
        raise RequestError(f"{source}: not readable as JSON: {error}.") from error


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


def record_labels(record: bytes, index: int = 0) -> list[Any]:
    """Returns the `item_id`s of a record where it has one a candidate, else their positions."""
    count = num_candidates(record, index)
    items: list[Any] = list(parse_record(record, index).get("item_id", []))
    return items if len(items) == count else [f"#{n}" for n in range(count)]


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


def printable(text: str) -> str:
    r"""Returns text that cannot command a terminal: control characters as `\x1b` and the like."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lays rows of equal keys out as plain text.

    Example:
        >>> print(text_table([{"rank": 1, "candidate": 13, "ctr": 0.7}]))
        rank  candidate     ctr
           1  13         0.7000
    """
    if not rows:
        return "(no candidates)"
    lines = [list(rows[0])]
    lines += [
        [f"{v:.4f}" if isinstance(v, float) else printable(str(v)) for v in row.values()]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [isinstance(name, str) and name == "candidate" for name in lines[0]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )
