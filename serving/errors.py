"""The one exception of the client: what the server answered, and what to do about it."""

from __future__ import annotations

from typing import Any

import grpc

_ADVICE = {
    grpc.StatusCode.UNAVAILABLE: "Check that a server runs at {target} and can be reached.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Raise `timeout`, or send fewer candidates a call.",
    grpc.StatusCode.NOT_FOUND: "Check the model name and version against those being served.",
    grpc.StatusCode.INVALID_ARGUMENT: (
        "The request does not fit the served model: use the schema exported with it, and labels "
        "that the server has."
    ),
    grpc.StatusCode.FAILED_PRECONDITION: (
        "The served model lacks what was asked for: see `client.metadata()` for what it has."
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "Lower `max_candidates_per_call`, slow down, or raise the server's limits."
    ),
    grpc.StatusCode.UNIMPLEMENTED: "Check {target}: what answers there is no prediction server.",
    grpc.StatusCode.INTERNAL: "See the server's log.",
    grpc.StatusCode.UNAUTHENTICATED: "Pass the TLS files that the server at {target} asks for.",
    grpc.StatusCode.PERMISSION_DENIED: "Pass the TLS files that the server at {target} asks for.",
}


# What a failed handshake says; without it the advice would be to look for a server that runs.
_TLS_WORDS = ("handshak", "SSL", "TLS", "certificate", "CERTIFICATE")
_TLS_ADVICE = (
    "Client and server at {target} do not agree on TLS: pass both or neither, the root "
    "certificates that the server's is signed with, and the client's own where it is asked for."
)


class ServingError(RuntimeError):
    """A call that failed.

    Attributes:
        code: the gRPC status code.
        details: what the server, or the transport, said.
        advice: what to do.
    """

    def __init__(self, code: grpc.StatusCode, details: str, advice: str = ""):
        super().__init__(" ".join(part for part in (f"{code.name}: {details}", advice) if part))
        self.code = code
        self.details = details
        self.advice = advice

    @classmethod
    def from_rpc(cls, error: Any, target: str, attempts: int = 1) -> ServingError:
        """Translates a `grpc.RpcError`.

        Args:
            error: what gRPC raised.
            target: server that was called.
            attempts: how often it was called.
        """
        code, details = error.code(), error.details() or "no details"
        advice = _ADVICE.get(code, "")
        if code == grpc.StatusCode.UNAVAILABLE and any(word in details for word in _TLS_WORDS):
            advice = _TLS_ADVICE
        tried = f"(Tried {attempts} times.)" if attempts > 1 else ""
        return cls(code, details, " ".join(filter(None, [tried, advice.format(target=target)])))
