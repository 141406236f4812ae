"""Asks a server's grpc.health.v1 once: `python -m serving.probe localhost:8500`; for containers."""

from __future__ import annotations

import sys
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(
    target: Annotated[str, typer.Argument(help="host:port of the server.")] = "localhost:8500",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait.")] = 2.0,
) -> None:
    """Ends with code 0 when the server says SERVING, and 1 otherwise."""
    with grpc.insecure_channel(target) as channel:
        try:
            request = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.RpcError as error:
            typer.echo(f"{target}: {error.code().name}", err=True)
            sys.exit(1)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    typer.echo(f"{target}: {status}")
    sys.exit(0 if status == "SERVING" else 1)


if __name__ == "__main__":
    typer.run(main)
