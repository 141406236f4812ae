"""One call as the code that answers it sees it: what is left of it, and how it may be refused."""

from __future__ import annotations

from typing import Any

import grpc

_FOREVER = 24 * 3600.0  # gRPC gives calls without a deadline one in the far future.


class Rejected(Exception):
    """An answer other than OK.

    Attributes:
        code: the gRPC status code.
    """

    def __init__(self, code: grpc.StatusCode, details: str):
        super().__init__(details)
        self.code = code


class Call:
    """A call's deadline, and whether its caller still waits.

    Args:
        context: gRPC's view of it; none for a run of the server's own, which nothing ends early.
    """

    def __init__(self, context: Any = None):
        self._context = context

    def seconds(self) -> float | None:
        """Returns what is left before the deadline; None when there is none."""
        if self._context is None:
            return None
        left = self._context.time_remaining()
        return None if left is None or left > _FOREVER else left

    def check(self) -> None:
        """Raises `Rejected` when nobody waits for an answer any more."""
        left = self.seconds()
        if left is not None and left <= 0:
            raise Rejected(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline has passed.")
        if self._context is not None and not self._context.is_active():
            raise Rejected(grpc.StatusCode.CANCELLED, "The caller has gone.")


UNBOUNDED = Call()
"""For runs of the server's own, such as warming up."""
