"""`python -m serving.loadtest`: what a server carries, at what latency, and through a swap.

    python -m serving.loadtest --target localhost:8500 --model dfn --requests models/dfn \
        --rate 50 100 200 --seconds 20 --html load.html
    python -m serving.loadtest --target localhost:8500 --model dfn --requests requests.json \
        --closed --concurrency 1 2 4 --candidates 10 100 1000
    python -m serving.loadtest --target localhost:8500 --model dfn --rate 50 \
        --rehearse-swap models/dfn/7
    python -m serving.loadtest --tune models/dfn --model dfn --p99-ms 20 --flags flags.txt

`--requests` takes a file, or a published model whose golden requests are meant: the folder of a
version, or of all versions, of which the newest is taken. Rehearsals and tuning take those of
their model when it is left out.

Exit codes: 0 measured; 1 the server failed, answered wrongly through a swap, or meets no latency
target; 2 wrong options or requests; 130 interrupted.
"""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.client import FeedbackClient, ServingError
from serving.client_command import INTERRUPTED, SERVER_FAILED, WRONG_INPUT, add_tls_options, tls_of
from serving.client_requests import text_table
from serving.cores import usable_cores
from serving.loadtest_load import MOST_SECONDS, Load, closed_loop, open_loop
from serving.loadtest_report import html_report, rows_of
from serving.loadtest_requests import read_payloads, resized
from serving.loadtest_samples import summary
from serving.loadtest_swap import SwapError, rehearse
from serving.loadtest_tune import TuneError, Tuning, tune, write_flags
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Schema

MOST_RUNS = 50
_SENT = {"requests", "seconds", "label", "max_calls", "timeout"}
_SENT |= {"tls", "root_certificates", "client_certificate", "client_key", "server_name"}
_USED_BY = {  # options that not every kind of load has a use for
    "rate": _SENT | {"rate", "threads", "candidates", "seed"},
    "closed": _SENT | {"concurrency", "candidates"},
    "rehearse_swap": _SENT | {"rate", "threads", "seed"},
    "tune": {"requests", "seconds", "concurrency", "p99_ms", "flags"},
}


def is_loopback(target: str) -> bool:
    """Returns whether a target is certainly this machine; names are not looked up.

    Example:
        >>> is_loopback("localhost:8500"), is_loopback("localhost.example.com:8500")
        (True, False)
    """
    if target.startswith("unix:"):
        return True
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal():
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Loads a server with requests and reports its latencies.

    Args:
        arguments: of the command line; default: the process's own.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.target is None) == (options.tune is None):
        parser.error("give --target, or --tune with the folder of a model's versions")
    _check_options(parser, options)
    if options.seconds is None:  # a busy server may take half a minute to load a version
        options.seconds = 60.0 if options.rehearse_swap else 10.0
    options.requests = options.requests or options.rehearse_swap or options.tune
    if options.requests is None:
        parser.error("give --requests: a file, or the folder of a model with golden requests")
    if options.target and not options.allow_remote and not is_loopback(options.target):
        parser.error(
            f"{options.target} is not a loopback address: a load test can take a server down. "
            "Pass --allow-remote if it is yours to load."
        )
    try:
        report = _report(options)
    except (ServingError, SwapError, TuneError) as error:
        return _fail(error, SERVER_FAILED)
    except (RequestError, ValueError, OSError) as error:
        return _fail(error, WRONG_INPUT)
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        _write(report, options)
    except OSError as error:
        return _fail(error, WRONG_INPUT)
    return SERVER_FAILED if _bad(report) else 0


def _check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses options that this kind of load has no use for: they would seem to have been heard."""
    kinds = [kind for kind in ("tune", "rehearse_swap", "closed") if getattr(options, kind)]
    kind, *others = kinds or ["rate"]
    if others:
        parser.error(f"{_flag(kind)} and {_flag(others[0])} do not go together")
    given = {name for name, value in vars(options).items() if value != parser.get_default(name)}
    useless = given & set().union(*_USED_BY.values()) - _USED_BY[kind]
    if useless:
        loads = "an open loop" if kind == "rate" else _flag(kind)
        parser.error(f"{', '.join(map(_flag, sorted(useless)))}: of no use for {loads}")
    if kind == "rehearse_swap" and len(options.rate) > 1:
        parser.error("--rehearse-swap takes one --rate")
    for path in filter(None, (options.json, options.html, options.flags)):
        if not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.loadtest",
        description="Loads a server with requests and reports its latencies.",
    )
    add = parser.add_argument
    add("--target", metavar="HOST:PORT", help="the server")
    add("--model", required=True, metavar="NAME", help="as it is served")
    add(
        "--requests",
        type=Path,
        metavar="PATH",
        help=".json, .jsonl, .tfrecord, or a model's folder",
    )
    add("--label", help="version by its label")
    add("--seconds", type=float, help="a load lasts (default 10, 60 with --rehearse-swap)")
    add("--max-calls", type=int, default=100_000, help="of a load (default 100,000)")
    add("--timeout", type=float, default=5.0, help="seconds a call may take (default 5)")
    add("--rate", type=float, nargs="+", default=[50.0], help="open loop: calls a second")
    add("--closed", action="store_true", help="closed loop: callers wait for their answers")
    add("--concurrency", type=int, nargs="+", default=[1, 2, 4], help="closed loop: callers")
    add("--threads", type=int, default=64, help="open loop: calls at a time (default 64)")
    add("--candidates", type=int, nargs="+", help="sends every request with so many instead")
    add("--seed", type=int, default=0, help="of the arrivals")
    add("--rehearse-swap", type=Path, metavar="VERSION_FOLDER", help="publish a copy under load")
    add("--tune", type=Path, metavar="BASE_FOLDER", help="find flags of the embedded server")
    add("--p99-ms", type=float, default=50.0, help="latency target of --tune (default 50)")
    add("--flags", type=Path, metavar="FILE", help="where --tune writes the flags")
    add("--json", type=Path, metavar="FILE", help="write the report as JSON")
    add("--html", type=Path, metavar="FILE", help="write the report as one HTML file")
    add("--allow-remote", action="store_true", help="load a server on another machine")
    add_tls_options(parser)
    return parser


def _report(options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {"title": f"Load test of {options.model}", "runs": []}
    report["notes"] = [
        f"Client and, on a loopback address, server share {usable_cores()} cores. Latencies are "
        "the client's, encoding included.",
        "A percentile of few calls is the largest of them: p99.9 needs a thousand.",
    ]
    if options.tune:
        return report | _tuned(options)
    client_options = {"label": options.label, "tls": tls_of(options)}
    with FeedbackClient(
        options.target, options.model, timeout=options.timeout, **client_options
    ) as client:
        served, schema = client.metadata(), client.schema()
    payloads = read_payloads(options.requests)
    load = Load(
        options.target, options.model, payloads, options.seconds, options.max_calls,
        options.timeout, client_options, seed=options.seed,
    )  # fmt: skip
    report["summary"] = f"{options.target}, version {served.version}, {len(payloads)} requests."
    if options.rehearse_swap:
        report["rehearsal"] = found = rehearse(
            load, options.rate[0], options.rehearse_swap, options.threads
        )
        names = ("before", "during", "after")
        report["runs"] = [{"settings": {"swap": name}, **found[name]} for name in names]
    else:
        report["runs"] = _runs(load, options, schema)
    return report


def _tuned(options: argparse.Namespace) -> dict[str, Any]:
    tuning = Tuning(
        base=options.tune,
        model=options.model,
        payloads=read_payloads(options.requests),
        p99_ms=options.p99_ms,
        seconds=options.seconds,
        concurrency=tuple(options.concurrency),
    )
    found = tune(tuning)
    goal = f"p99 of {options.p99_ms:g} ms"
    met = f"No setting meets a {goal}; closest"
    if found["within"]:
        met = f"{found['rate']:g} calls a second within a {goal}"
    text = f"{met}: {' '.join(found['flags'])}"
    return {"tuning": found, "runs": found["runs"], "summary": text}


def _runs(load: Load, options: argparse.Namespace, schema: Schema) -> list[dict[str, Any]]:
    """Runs every combination of load and candidates."""
    axis = "concurrency" if options.closed else "rate"
    sweep = list(itertools.product(options.candidates or [None], getattr(options, axis)))
    if len(sweep) > MOST_RUNS or len(sweep) * options.seconds > MOST_SECONDS:
        raise ValueError(
            f"{len(sweep)} loads of {options.seconds:g} s are too many: up to {MOST_RUNS} in "
            f"{MOST_SECONDS:.0f} s are made."
        )
    runs = []
    for candidates, level in sweep:
        one = load
        if candidates is not None:
            changes = [resized(p, candidates, schema) for p in load.payloads]
            one = Load(**{**vars(load), "payloads": changes})
        samples = (
            closed_loop(one, level) if options.closed else open_loop(one, level, options.threads)
        )
        if not samples:
            raise ValueError(
                f"No call fell into {options.seconds:g} s at {level:g} a second: raise --rate or "
                "--seconds."
            )
        settings = {axis: level} | ({} if candidates is None else {"candidates": candidates})
        runs.append({"settings": settings, **summary(samples)})
    return runs


def _bad(report: dict[str, Any]) -> bool:
    if swap := report.get("rehearsal"):
        return bool(swap["failed"] or swap["wrong"])
    if tuning := report.get("tuning"):
        return not tuning["within"]
    return all(run["failed"] == run["calls"] for run in report["runs"])


def _write(report: dict[str, Any], options: argparse.Namespace) -> None:
    sys.stdout.write(f"{report['title']}: {report['summary']}\n{text_table(rows_of(report))}\n")
    if swap := report.get("rehearsal"):
        sys.stdout.write(f"{swap['failed']} failed, {swap['wrong']} wrong answers\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.html:
        options.html.write_bytes(html_report(report))
    if options.tune and options.flags:
        write_flags(options.flags, report["tuning"]["flags"])


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"Error: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
