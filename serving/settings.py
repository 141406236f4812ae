"""How the embedded server runs, with defaults for a laptop and a small deployment."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from serving.execution import Limits
from serving.loader import Threads
from serving.manager import Watching
from serving.tls import TlsFiles

_LIMITS, _WATCHING, _THREADS = Limits(), Watching(), Threads()


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a server runs.

    Attributes:
        workers: threads, and so requests that run at a time; 0: twice the cores.
        max_calls: calls under way or waiting; one more is RESOURCE_EXHAUSTED.
        max_message_bytes: largest message taken or sent.
        limits: bounds of one request.
        watching: how new versions are looked for.
        threads: threads of TensorFlow.
        tls: certificate and key; without them connections are not encrypted.
        http_port: port of metrics, health and the scoring page; 0: a free one; None: no such port.
        http_host: address of that port.
        request_log: folder for a sample of the requests; None: none is written.
        request_log_rate: share of the requests that is written, 0 to 1.
    """

    workers: int = 0
    max_calls: int = 1024
    max_message_bytes: int = 64 << 20
    limits: Limits = _LIMITS
    watching: Watching = _WATCHING
    threads: Threads = _THREADS
    tls: TlsFiles | None = None
    http_port: int | None = None
    http_host: str = "127.0.0.1"
    request_log: Path | None = None
    request_log_rate: float = 0.01
