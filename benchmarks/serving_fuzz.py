"""Malformed requests against a running server: `python -m benchmarks.serving_fuzz`.

Every one must end in a documented status, and the server must live and not grow.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import grpc
import hypothesis
import typer
from rich.console import Console

from benchmarks.measure import Report
from benchmarks.serving_malformed import malformed, serialized
from benchmarks.serving_model import NAME, good_requests, publish_small_model, quiet, serving
from serving.loader import LoadedModel

_TIMEOUT = 30.0
_BATCH = 2_000  # examples of one run of hypothesis, which remembers all of its run's
_WARMUP = 0.1  # of the requests are sent before memory is measured


def documented(code: str, details: str) -> bool:
    """Returns whether an answer is one that the documentation names for a malformed request."""
    if code == "INTERNAL":  # bytes that are no message; not a fault of the server's own
        return details.startswith("The bytes are no ")
    if code == "UNIMPLEMENTED":
        return details.startswith("Unsupported signature method_name")
    return code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")


@dataclasses.dataclass
class Fuzzed:
    """What became of the requests.

    Attributes:
        statuses: how many ended in each.
        undocumented: the first answers that no document names.
        wrong: good requests between them that were not answered as before.
    """

    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    undocumented: list[str] = dataclasses.field(default_factory=list)
    wrong: int = 0

    def good(self) -> bool:
        """Returns whether nothing was found."""
        return not self.undocumented and not self.wrong


def fuzz(
    target: str, goods: Sequence[tuple[Any, Any]], requests: int, seed: int, found: Fuzzed
) -> None:
    """Sends malformed requests, and looks after every batch whether good ones are still answered.

    Args:
        target: of the server.
        goods: methods and messages of good requests.
        requests: how many.
        seed: of the randomness.
        found: what becomes of them is added here.
    """
    with grpc.insecure_channel(target) as channel:
        expected = [_answer(channel, *serialized(good)) for good in goods]
        end = sum(found.statuses.values()) + requests
        while (left := end - sum(found.statuses.values())) > 0:
            seed += 1
            _batch(channel, goods, min(left, _BATCH), seed, found)
            answers = [_answer(channel, *serialized(good)) for good in goods]
            found.wrong += sum(a != b for a, b in zip(answers, expected, strict=True))


def _batch(
    channel: grpc.Channel, goods: Sequence[tuple[Any, Any]], size: int, seed: int, found: Fuzzed
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=size,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(malformed(goods))
    def send(sent: tuple[Any, bytes]) -> None:
        code, details = _answer(channel, *sent)[:2]
        found.statuses[code] += 1
        if not documented(code, details) and len(found.undocumented) < 10:
            found.undocumented.append(f"{code} {details}: {sent[0].name} {sent[1]!r}")

    send()


def _answer(channel: grpc.Channel, method: Any, data: bytes) -> tuple[str, str, bytes]:
    """Returns status, details and bytes of the answer to some bytes."""
    try:
        answer = channel.unary_unary(method.path)(data, timeout=_TIMEOUT)
    except grpc.RpcError as error:
        return error.code().name, error.details() or "", b""
    message = method.response.FromString(answer)
    return "OK", "", message.SerializeToString(deterministic=True)


def main(
    requests: Annotated[int, typer.Option(min=1, help="Malformed requests to send.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Another seed sends others.")] = 0,
    growth: Annotated[float, typer.Option(help="Allowed growth of memory.")] = 0.05,
) -> None:
    """Sends malformed requests to a server; ends with code 1 when one shows a fault."""
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        version = publish_small_model(Path(folder) / NAME)
        goods = good_requests(LoadedModel(NAME, version), 5, 20)
        options = ("--model-base-path", str(version.parent), "--model-name", NAME)
        with serving(*options) as server:
            found = Fuzzed()
            warmup = max(1, int(requests * _WARMUP))
            fuzz(server.target, goods, warmup, seed, found)
            before = server.rss_mib()
            fuzz(server.target, goods, requests - warmup, seed + requests, found)
            after = server.rss_mib() if server.alive() else float("nan")
            lives = server.alive()
    report = Report(
        f"{sum(found.statuses.values()):,} malformed requests",
        ["status", "requests"],
        list(map(list, found.statuses.most_common())),
        [
            f"The server {'lives' if lives else 'has ended'}; memory {before:.0f} MiB after the "
            f"first {warmup:,}, {after:.0f} MiB at the end ({after / before - 1:+.1%}).",
            f"Undocumented answers: {len(found.undocumented)}. Good requests between them answered "
            f"otherwise: {found.wrong}.",
        ],
    )
    console = Console()
    console.print(report.table())
    for answer in found.undocumented:
        console.print(answer, markup=False)
    if not lives or not found.good() or not after <= before * (1 + growth):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
