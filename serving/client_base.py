"""What both clients are made of: their options, and the deadlines of their calls."""

from __future__ import annotations

import time
from typing import Any

from serving.client_calls import Connection, Log
from serving.client_core import ClientCore
from serving.policy import RetryPolicy, TlsConfig
from tfrec_feedback.schema import Schema

READY_SECONDS = 1.0
"""Longest time `ready` waits for an answer."""
_LONGEST = 365 * 86400.0  # gRPC takes no infinite deadline


class ClientBase:
    """What both clients are made of.

    Args:
        target: `host:port` of the server.
        model: name the model is served under.
        schema: what a request holds. Checked against the served model on first use; when left
            out it is read from there.
        timeout: seconds a call of this object may take, retries and splits included; every
            method takes its own.
        version: a version of the model; the server's choice when left out.
        label: a version by its label, such as `canary`, instead of its number.
        max_candidates_per_call: candidates, counting padding, in one message; more are sent in
            several, each with the user's part.
        retry: when a call is tried again.
        tls: encryption and identity; None for a plain connection.
        log: told of every call as a `CallRecord`: a callable, or a standard logger.

    Raises:
        ValueError: for a timeout or limit that is not positive, a version beside a label, and TLS
            files that cannot be read.
    """

    def __init__(  # noqa: PLR0913 - one keyword an option, all with defaults
        self,
        target: str,
        model: str,
        schema: Schema | None = None,
        *,
        timeout: float = 5.0,
        version: int | None = None,
        label: str | None = None,
        max_candidates_per_call: int = 1000,
        retry: RetryPolicy | None = None,
        tls: TlsConfig | None = None,
        log: Log | None = None,
    ):
        if not timeout > 0 or max_candidates_per_call < 1:
            raise ValueError(
                "timeout and max_candidates_per_call must be positive, got "
                f"{timeout} and {max_candidates_per_call}."
            )
        if version is not None and label is not None:
            raise ValueError(
                f"A version is named by its number or its label, got {version} and {label!r}."
            )
        self._timeout = timeout
        self._core = ClientCore(model, schema, version, label, max_candidates_per_call)
        self._channel: Any = self._open(Connection(target, retry or RetryPolicy(), tls, log))

    def _open(self, connection: Connection) -> Any:
        """Returns the channel that calls are made over."""
        raise NotImplementedError

    def _deadline(self, timeout: float | None) -> float:
        """Returns when a call must end, in seconds of `time.monotonic()`."""
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}.")
        return time.monotonic() + min(self._timeout if timeout is None else timeout, _LONGEST)

    def _ready_deadline(self, timeout: float | None) -> float:
        return self._deadline(min(self._timeout if timeout is None else timeout, READY_SECONDS))
