"""The embedded server: one model over gRPC, for laptops, tests and small deployments.

It answers what TF Serving answers (Predict, GetModelMetadata, GetModelStatus, grpc.health.v1), so
that a client need not know which of the two it talks to.

    python -m serving.server --model-base-path models/dfn --model-name dfn --port 8500
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from concurrent import futures
from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from rich.console import Console

from serving import wire
from serving.loader import LoadedModel, ModelError, find_version
from serving.servicer import Servicer

DEFAULT_MAX_MESSAGE_BYTES = 64 << 20
_GRACE_SECONDS = 30.0


class FeedbackServer:
    """Serves one version of a model.

    The model is loaded when the object is made; `start` opens the port.

    Args:
        model_base_path: folder of the versions, `<base>/<integer>`.
        model_name: name to serve it under.
        port: TCP port; 0 picks a free one.
        host: address to listen on.
        version: version to serve; the highest when left out.
        workers: threads, and so requests at a time; twice the cores when left out.
        max_message_bytes: largest message taken or sent.

    Raises:
        ModelError: when there is no model to load.

    Example:
        with FeedbackServer("models/dfn", "dfn") as server:
            FeedbackClient(server.target, "dfn").rank(context, histories, candidates)
    """

    def __init__(
        self,
        model_base_path: str | Path,
        model_name: str,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        version: int | None = None,
        workers: int | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ):
        self._model = LoadedModel(model_name, find_version(model_base_path, version))
        # An IPv6 address holds colons itself; gRPC wants it in brackets.
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Without this a second server on the same port starts, and takes half of the calls.
            ("grpc.so_reuseport", 0),
        ]
        threads = workers or 2 * (os.cpu_count() or 1)
        self._server = grpc.server(futures.ThreadPoolExecutor(threads), options=options)
        self._server.add_generic_rpc_handlers(Servicer(self._model).handlers())
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    @property
    def version(self) -> int:
        """Version that is served."""
        return self._model.version

    @property
    def target(self) -> str:
        """`host:port`, as a client takes it."""
        return f"{self._host}:{self._port}"

    def start(self) -> int:
        """Opens the port and answers from now on.

        Returns:
            The port.

        Raises:
            OSError: when the port cannot be had.
        """
        try:
            self._port = self._server.add_insecure_port(self.target)
        except RuntimeError as error:
            raise OSError(
                f"Cannot listen on {self.target}: the port is taken, or the address is not this "
                "machine's. Pass another port, or 0 for a free one."
            ) from error
        self._server.start()
        for service in ("", wire.PREDICTION_SERVICE, wire.MODEL_SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self._port

    def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Takes no new calls, lets those under way finish, and frees the model.

        Args:
            grace: seconds after which calls that are still under way are cancelled.
        """
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()
        self._model.close()

    def __enter__(self) -> FeedbackServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def main(
    model_base_path: Annotated[Path, typer.Option(help="Folder of the versions 1, 2, ...")],
    model_name: Annotated[str, typer.Option(help="Name to serve the model under.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 8500,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    version: Annotated[int | None, typer.Option(help="Default: the highest.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Default: twice the cores.")] = None,
    max_message_bytes: Annotated[
        int, typer.Option(min=1, help="Largest message taken or sent.")
    ] = DEFAULT_MAX_MESSAGE_BYTES,
) -> None:
    """Serves a model over gRPC until SIGTERM or Ctrl-C, then lets calls under way finish.

    When ready, one line of JSON on stdout says where: {"target": ..., "model": ..., "version": ...}
    """
    console = Console(stderr=True)
    # TF Serving's own way of loading is deprecated in Python: nothing the reader can act on.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server = FeedbackServer(
            model_base_path,
            model_name,
            port,
            host,
            version=version,
            workers=workers,
            max_message_bytes=max_message_bytes,
        )
        server.start()
    except (ModelError, OSError) as error:
        console.print(f"Error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
    console.print(
        f"Serving {model_name!r} version {server.version} at {server.target}", markup=False
    )
    ready = {"target": server.target, "model": model_name, "version": server.version}
    typer.echo(json.dumps(ready))
    stopped.wait()
    console.print("Stopping: calls under way finish first.")
    server.stop()


if __name__ == "__main__":
    typer.run(main)
