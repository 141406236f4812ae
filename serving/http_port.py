"""The HTTP port beside the gRPC one: metrics, health, and a page that may be mounted at `/`."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from serving.metrics import CONTENT_TYPE, Metrics

_LOG = logging.getLogger(__name__)
_METRICS = ("/metrics", "/monitoring/prometheus/metrics")  # the second is TF Serving's
_TEXT = "text/plain; charset=utf-8"
_MAX_BODY = 1 << 20
_MAX_DISCARDED = 16 << 20
_MAX_AT_ONCE = 64
_SECONDS = 10.0
Answer = tuple[int, str, bytes]
"""Status, content type and body."""


class Page(Protocol):
    """What answers the paths that are not the server's own."""

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Answers GET or POST of a path, its query included."""


class HttpPort:
    """Serves metrics, `/healthz`, `/readyz` and a page, on threads of its own.

    Args:
        host: address to listen on. There is neither TLS nor a password: keep it local, or behind
            something that has them.
        port: TCP port; 0 picks a free one.
        metrics: what `/metrics` shows.
        ready: whether every model answers.
        page: answers all other paths; without one they are 404.

    Attributes:
        port: the port.

    Raises:
        OSError: when the port cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        ready: Callable[[], bool],
        page: Page | None = None,
    ):
        self._metrics, self._ready, self._page = metrics, ready, page
        self._places = threading.BoundedSemaphore(_MAX_AT_ONCE)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind: Any = type("_Server", (_Server,), {"address_family": family})
        self._server = kind((host, port), _handler(self._answer))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, method: str, path: str, body: bytes) -> Answer:
        if not self._places.acquire(blocking=False):
            return 503, _TEXT, b"Too many requests at once.\n"
        try:
            return self._route(method, path, body)
        except Exception:
            _LOG.exception("%s %s failed", method, path)
            return 500, _TEXT, b"The server failed; see its log.\n"
        finally:
            self._places.release()

    def _route(self, method: str, path: str, body: bytes) -> Answer:
        plain = path.partition("?")[0]
        if plain in (*_METRICS, "/healthz", "/readyz"):
            if method != "GET":
                return 405, _TEXT, b"Use GET.\n"
            if plain in _METRICS:
                return 200, CONTENT_TYPE, self._metrics.text().encode()
            if plain == "/healthz" or self._ready():
                return 200, _TEXT, b"ok\n"
            return 503, _TEXT, b"not ready\n"
        if self._page is None:
            return 404, _TEXT, b"There is no such page.\n"
        return self._page.handle(method, path, body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away is no error of the server's."""
        _LOG.debug("A connection from %s broke.", client_address, exc_info=True)


def _handler(answer: Callable[[str, str, bytes], Answer]) -> type:
    class Handler(http.server.BaseHTTPRequestHandler):
        server_version, sys_version = "tfrec-feedback", ""
        timeout = _SECONDS  # a caller that sends nothing does not keep its thread

        def do_GET(self) -> None:  # noqa: N802
            self._reply(answer("GET", self.path, b""))

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:  # noqa: N802
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdecimal()):
                self._reply((411, _TEXT, b"Content-Length is needed.\n"))
            elif len(length) > 9 or int(length) > _MAX_BODY:
                self._discard(int(length[:9]))
                self._reply((413, _TEXT, b"The body is too large.\n"))
            else:
                self._reply(answer("POST", self.path, self.rfile.read(int(length))))

        def _discard(self, length: int) -> None:
            """Reads on for a while: who is still sending would not see the answer."""
            left = min(length, _MAX_DISCARDED)
            while left > 0 and (part := self.rfile.read(min(left, 1 << 16))):
                left -= len(part)
            self.close_connection = True

        def _reply(self, answered: Answer) -> None:
            status, kind, body = answered
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Paths may hold what is nobody else's business: they are not logged."""

    return Handler
