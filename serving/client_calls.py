"""What synchronous and asyncio clients share about calling: options, tries, and what is told."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc

from serving.errors import ServingError
from serving.policy import RetryPolicy, TlsConfig
from serving.wire import Method

MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The default of 4 MiB is less than the answer to a large batch.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The default waits a second before the first reconnect: longer than most deadlines.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # gRPC's own retries would multiply with the policy's, and are not told of.
    ("grpc.enable_retries", 0),
]
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CallRecord:
    """One try of one call, as the logging hook sees it: no features, no scores, no credentials.

    Attributes:
        target: server that was called.
        method: e.g. `Predict`.
        signature: signature that was asked for; empty where the method has none.
        model: model that was asked for.
        version: version that answered; None where the answer names none.
        attempt: number of the try, from 1.
        seconds: how long it took.
        code: name of the gRPC code, `OK` included.
        request_bytes: size of the message.
        response_bytes: size of the answer; 0 without one.
    """

    target: str
    method: str
    signature: str
    model: str
    version: int | None
    attempt: int
    seconds: float
    code: str
    request_bytes: int
    response_bytes: int


Log = Callable[[CallRecord], object] | logging.Logger


@dataclasses.dataclass(frozen=True)
class Connection:
    """How one server is reached.

    Attributes:
        target: `host:port`, or any gRPC target.
        retry: when calls are tried again.
        tls: None for no encryption.
        log: told of every try: a callable, or a logger (successes at DEBUG, others at WARNING).
    """

    target: str
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    tls: TlsConfig | None = None
    log: Log | None = None

    def open(self, library: Any) -> Any:
        """Returns a channel of `grpc` or `grpc.aio`."""
        if self.tls is None:
            return library.insecure_channel(self.target, _OPTIONS)
        options = _OPTIONS + self.tls.options()
        return library.secure_channel(self.target, self.tls.credentials(), options)


class Attempts:
    """The tries of one call, apart from sending it: their time, their report, and their end.

    Args:
        connection: how the server is reached.
        method: what is called.
        request: its message.
        deadline: in seconds of `time.monotonic()`.
        retry: False to take the first answer, whatever the policy.
    """

    def __init__(
        self, connection: Connection, method: Method, request: Any, deadline: float, retry: bool
    ):
        self._connection = connection
        self._method = method
        self._request = request
        self._deadline = deadline
        self._retry = retry
        self._count = 0
        self._start = 0.0

    def begin(self) -> float:
        """Starts a try, and returns the seconds it may take."""
        self._count += 1
        self._start = time.monotonic()
        return max(0.0, self._deadline - self._start)

    def succeeded(self, answer: Any) -> Any:
        """Reports a try that was answered, and returns the answer."""
        if self._connection.log is not None:
            spec = answer.model_spec if "model_spec" in answer.DESCRIPTOR.fields_by_name else None
            version = spec.version.value if spec is not None and spec.HasField("version") else None
            self._tell("OK", version, answer.ByteSize())
        return answer

    def pause_after(self, error: Any) -> float:
        """Reports a failed try.

        Args:
            error: a `grpc.RpcError`.

        Returns:
            Seconds to wait before the next try.

        Raises:
            ServingError: when there is none.
        """
        code, details = error.code().name, error.details() or ""
        self._tell(code, None, 0)
        pause = self._connection.retry.pause(self._count)
        allowed = self._retry and self._connection.retry.allows(code, details, self._count)
        if not allowed or time.monotonic() + pause >= self._deadline:
            raise ServingError.from_rpc(error, self._connection.target, self._count) from error
        return pause

    def cancelled(self, why: str) -> ServingError:
        """Reports a try that this side ended, and returns what to raise."""
        self._tell("CANCELLED", None, 0)
        return ServingError(grpc.StatusCode.CANCELLED, why)

    def _tell(self, code: str, version: int | None, response_bytes: int) -> None:
        log = self._connection.log
        if log is None:
            return
        spec = self._request.model_spec
        record = CallRecord(
            self._connection.target,
            self._method.name,
            spec.signature_name,
            spec.name,
            version,
            self._count,
            time.monotonic() - self._start,
            code,
            self._request.ByteSize(),
            response_bytes,
        )
        if isinstance(log, logging.Logger):
            log.log(logging.DEBUG if code == "OK" else logging.WARNING, "%s", record)
            return
        try:
            log(record)
        except Exception:  # a hook that fails must not cost its caller the scores
            _LOG.exception("The logging hook of a client failed")
