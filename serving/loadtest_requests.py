"""The requests of a load test: read from files, or the golden ones of a published model."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from serving.client_requests import load_requests
from serving.loadtest_load import Payload
from serving.page import as_columns
from serving.records import decode_record, golden_file, num_candidates, read_records
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Schema


def read_payloads(path: Path) -> list[Payload]:
    """Reads what is to be sent.

    Args:
        path: `.json`, `.jsonl` or `.tfrecord`, or a folder as `golden_file` takes it. Records are
            sent as they are, through `rank_examples`.

    Raises:
        RequestError: for a file that is missing, broken or empty.
    """
    path = golden_file(path)
    if path.suffix != ".tfrecord" or not path.is_file():
        return load_requests(path)
    records: list[Payload] = []
    for index, record in enumerate(read_records(path)):
        num_candidates(record, index)  # what is no request is told of before any load
        records.append(record)
    if not records:
        raise RequestError(f"{path} holds no requests.")
    return records


def resized(payload: Payload, count: int, schema: Schema) -> dict[str, Any]:
    """Returns a request with so many candidates: its own, over and over.

    Args:
        payload: the request, or its record.
        count: candidates, from 1.
        schema: what a record holds.

    Raises:
        RequestError: for a count below 1, and a request without candidates.
    """
    request = decode_record(schema, payload) if isinstance(payload, bytes) else payload
    columns = as_columns(request.get("candidates"))
    if count < 1 or not all(columns.values()) or not columns:
        raise RequestError("--candidates needs numbers from 1, and requests with candidates.")
    repeated = {
        name: list(itertools.islice(itertools.cycle(column), count))
        for name, column in columns.items()
    }
    return {**request, "candidates": repeated}
