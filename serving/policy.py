"""How a client calls: when it tries again, how it proves who it is, how it is stopped.

Plain dataclasses: importing pydantic would take a quarter of the time that a client needs to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import random
import threading
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import grpc

PASSING = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
"""Codes after which the same call may succeed. Others say something that waiting cannot change."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """When a failed call is tried again; always within the deadline of the call.

    Attributes:
        max_attempts: tries in all; None for as many as the deadline allows.
        first_pause: seconds before the second try.
        growth: how much longer every further pause is.
        longest_pause: seconds no pause exceeds.
        jitter: share of a pause that is drawn at random, so that clients that failed together do
            not return together.
        codes: gRPC codes that are tried again. INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION
            and their like cannot be named: the answer would be the same.

    Raises:
        ValueError: for a value outside its range, and a code that cannot be named.

    Example:
        >>> RetryPolicy(first_pause=0.1, jitter=0).pause(failures=3)
        0.4
        >>> RetryPolicy.never().max_attempts
        1
    """

    max_attempts: int | None = None
    first_pause: float = 0.05
    growth: float = 2.0
    longest_pause: float = 2.0
    jitter: float = 0.5
    codes: Set[str] = PASSING

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts must be None or at least 1, got {self.max_attempts}.")
        for name in ("first_pause", "longest_pause"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive time, got {getattr(self, name)}.")
        if not 1 <= self.growth <= 10:
            raise ValueError(f"growth must be from 1 to 10, got {self.growth}.")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, got {self.jitter}.")
        object.__setattr__(self, "codes", frozenset(self.codes))
        if wrong := sorted(self.codes - PASSING):
            raise ValueError(
                f"codes may name {sorted(PASSING)}, got {wrong}: a second try would be answered "
                "alike."
            )

    @classmethod
    def never(cls) -> RetryPolicy:
        """Returns the policy of taking the first answer."""
        return cls(max_attempts=1)

    def pause(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures (from 1), jitter included."""
        # The exponent is bounded: a float overflows long before a patient client gives up.
        grown = self.first_pause * self.growth ** min(failures - 1, 100)
        return min(grown, self.longest_pause) * (1.0 - self.jitter * random.random())

    def allows(self, code: str, details: str, attempts: int) -> bool:
        """Returns whether another try may help.

        Args:
            code: name of the gRPC code.
            details: what came with it.
            attempts: tries so far.
        """
        if self.max_attempts is not None and attempts >= self.max_attempts:
            return False
        # A message over a size limit is RESOURCE_EXHAUSTED too, and will not shrink by waiting.
        return code in self.codes and "larger than max" not in details


@dataclasses.dataclass(frozen=True)
class TlsConfig:
    """How the connection is encrypted, and how both ends prove who they are.

    Files are read when the client is made. Their contents are never kept in this object, so that
    it may be logged.

    Attributes:
        root_certificates: PEM file of the authorities that may vouch for the server; the system's
            when left out.
        client_certificate: PEM file with this client's certificate, for mutual TLS.
        client_key: PEM file with its private key.
        server_name: name the server's certificate is for, where it is not the target's host.

    Raises:
        ValueError: for a client key without its certificate, or the other way round.
    """

    root_certificates: str | os.PathLike[str] | None = None
    client_certificate: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses half a client identity: gRPC would silently connect without any."""
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError(
                "Mutual TLS needs both client_certificate and client_key; only one was given."
            )

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            ValueError: when a file cannot be read or is not PEM; names it, never its content.
        """
        return grpc.ssl_channel_credentials(
            _pem(self.root_certificates), _pem(self.client_key), _pem(self.client_certificate)
        )

    def options(self) -> list[tuple[str, str]]:
        """Returns the channel options that belong to it."""
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


def _pem(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"TLS file {path} cannot be read: {error.strerror}.") from error
    if b"-----BEGIN " not in content:
        raise ValueError(f"TLS file {path} is not PEM: it holds no '-----BEGIN ...' line.")
    return content


class Cancellation:
    """Stops calls of a synchronous client from another thread; asyncio cancels tasks instead.

    Example:
        >>> stop = Cancellation()
        >>> threading.Timer(0.0, stop.cancel).start()
        >>> stop.wait(5.0)
        True
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], object]] = []

    def cancel(self) -> None:
        """Cancels the calls under way that were given this object, and all later ones."""
        with self._lock:
            self._event.set()
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Waits, and returns whether it was cancelled meanwhile."""
        return self._event.wait(seconds)

    @contextlib.contextmanager
    def watched_by(self, callback: Callable[[], object]) -> Iterator[None]:
        """Calls `callback` once it is cancelled, at once when it is already."""
        with self._lock:
            self._watchers.append(callback)
        try:
            if self.cancelled:
                callback()
            yield
        finally:
            with self._lock:
                self._watchers.remove(callback)
