"""`python -m serving.client`: scores a file of requests, with the base install alone.

Exit codes: 0 scored; 1 the server did not answer, or refused; 2 wrong options, requests or files;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.batching import Scores
from serving.client import FeedbackClient
from serving.client_requests import (
    Candidates,
    load_requests,
    printable,
    ranking,
    record_labels,
    text_table,
)
from serving.errors import ServingError
from serving.policy import RetryPolicy, TlsConfig
from serving.records import golden_file, read_records
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Schema, SchemaError

SERVER_FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130
_EPILOG = "Exit codes: 0 scored, 1 the server failed or refused, 2 wrong options or requests."


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores requests with a running server and prints each one's candidates, best first.

    Args:
        arguments: of the command line; default: the process's own.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        answers = _scored(options)
    except ServingError as error:
        return _fail(error, SERVER_FAILED)
    except (RequestError, SchemaError, ValueError, OSError) as error:
        return _fail(error, WRONG_INPUT)
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        for index, (candidates, scores) in enumerate(answers):
            sys.stdout.write(
                _text(index, ranking(candidates, scores, options.top_k), scores, options)
            )
        sys.stdout.flush()
    except BrokenPipeError:  # its reader, such as `head`, has seen enough
        # What is left in the buffer would fail again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _text(
    index: int, rows: list[dict[str, Any]], scores: Scores, options: argparse.Namespace
) -> str:
    if options.json:
        return json.dumps({"request": index, "ranking": rows}) + "\n"
    count = len(next(iter(scores.values()), ()))
    title = f"Request {index}: {len(rows)} of {count} candidates, best first"
    return f"{title}\n{text_table(rows)}\n\n"


def _fail(error: Exception, code: int) -> int:
    lines = str(error).splitlines()
    sys.stderr.write("Error: " + "\n".join(printable(line) for line in lines) + "\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Scores requests with a running server and prints the candidates, best first.",
        epilog=_EPILOG,
    )
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("--model", required=True, metavar="NAME", help="as it is served")
    parser.add_argument(
        "--request",
        required=True,
        type=Path,
        metavar="PATH",
        help=".json, .jsonl, .tfrecord, or the folder of a model with golden requests",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--label", help="version by its label, such as canary")
    which.add_argument("--version", type=int, metavar="N", help="version by its number")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="default: ask the server")
    parser.add_argument(
        "--top-k", type=_positive, default=10, metavar="K", help="candidates shown (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a request")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="for all (default 10)"
    )
    parser.add_argument("--attempts", type=_positive, metavar="N", help="tries a call at most")
    add_tls_options(parser)
    return parser


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `tls_of` reads."""
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls", action="store_true", help="with the system's root certificates")
    group.add_argument("--root-certificates", type=Path, metavar="PEM", help="or with these")
    group.add_argument("--client-certificate", type=Path, metavar="PEM", help="for mutual TLS")
    group.add_argument("--client-key", type=Path, metavar="PEM", help="for mutual TLS")
    group.add_argument("--server-name", metavar="NAME", help="name in the server's certificate")


def tls_of(options: argparse.Namespace) -> TlsConfig | None:
    """Returns what the TLS options ask for, None without any."""
    names = ("root_certificates", "client_certificate", "client_key", "server_name")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return TlsConfig(**given) if given or options.tls else None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number


def _scored(options: argparse.Namespace) -> list[tuple[Candidates, Scores]]:
    schema = Schema.from_json(options.schema) if options.schema else None
    path = golden_file(options.request)
    records = list(read_records(path)) if path.suffix == ".tfrecord" and path.is_file() else None
    if records == []:
        raise RequestError(f"{path} holds no requests.")
    requests = load_requests(path) if records is None else []
    with FeedbackClient(
        options.target,
        options.model,
        schema,
        timeout=options.timeout,
        version=options.version,
        label=options.label,
        retry=RetryPolicy(max_attempts=options.attempts),
        tls=tls_of(options),
    ) as client:
        if records is not None:
            labels: list[Candidates] = [record_labels(r, index) for index, r in enumerate(records)]
            return list(zip(labels, client.rank_examples(records), strict=True))
        scores = client.rank_many(requests)
        return [(r["candidates"], s) for r, s in zip(requests, scores, strict=True)]
