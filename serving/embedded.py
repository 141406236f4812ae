"""The embedded server as an object: models over gRPC, and metrics over HTTP beside it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving import wire
from serving.cores import usable_cores
from serving.draining import CountingPool, Door
from serving.http_port import HttpPort
from serving.inference import Runner
from serving.loader import LoadedModel, ModelError, check_complete
from serving.manager import ModelManager
from serving.metrics import Metrics
from serving.model_config import ModelConfig, VersionPolicy
from serving.request_log import RequestLog
from serving.served_page import ServedPage
from serving.servicer import Servicer
from serving.settings import Settings
from serving.steps import Steps
from serving.tls import credentials
from serving.warmup import warm_up

_GRACE_SECONDS, _GRACE_OF_WATCHERS = 30.0, 1.0


class EmbeddedServer:
    """Serves models. They are loaded when the object is made; `start` opens the port.

    Args:
        models: what to serve.
        port: TCP port; 0 picks a free one.
        host: address to listen on.
        settings: how.

    Attributes:
        manager: the models.
        metrics: what was counted.

    Raises:
        ModelError: when a model has no version that loads.
        OSError: when certificates cannot be read, or the request log cannot be written.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        port: int = 0,
        host: str = "127.0.0.1",
        settings: Settings = Settings(),
    ):
        self.metrics = Metrics()
        self._settings = settings
        # An IPv6 address holds colons itself; gRPC wants it in brackets.
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._credentials = credentials(settings.tls) if settings.tls else None
        self._draining = False
        self._http: HttpPort | None = None
        self._runner = Runner(settings.limits, self._observe)
        self.manager = ModelManager(models, self._load, settings.watching)
        self._log: RequestLog | None = None
        try:
            if settings.request_log is not None:
                self._log = RequestLog(
                    settings.request_log, settings.request_log_rate, self.metrics
                )
        except OSError:
            self.manager.close()
            raise
        self._health = health.HealthServicer()
        self._servicer = Servicer(self.manager, self._runner, self.metrics, self._log)
        self._pool = CountingPool(settings.workers or 2 * usable_cores())
        self._door = Door()
        self._server = self._grpc_server()

    @property
    def target(self) -> str:
        """`host:port`, as a client takes it."""
        return f"{self._host}:{self._port}"

    @property
    def http_port(self) -> int | None:
        """Port of metrics, health and page; None when there is none."""
        return self._http.port if self._http else None

    def start(self) -> int:
        """Opens the ports and answers from now on.

        Returns:
            The gRPC port.

        Raises:
            OSError: when a port cannot be had; the server is stopped then.
        """
        try:
            self._listen()
        except OSError:
            self.stop(0.0)
            raise
        self._server.start()
        self.manager.start()
        for service in ("", wire.PREDICTION_SERVICE, wire.MODEL_SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self._port

    def _listen(self) -> None:
        """Opens the ports."""
        settings = self._settings
        try:
            if self._credentials:
                self._port = self._server.add_secure_port(self.target, self._credentials)
            else:
                self._port = self._server.add_insecure_port(self.target)
        except RuntimeError as error:
            raise OSError(
                f"Cannot listen on {self.target}: the port is taken, or the address is not this "
                "machine's. Pass another port, or 0 for a free one."
            ) from error
        if settings.http_port is not None:
            try:
                page = ServedPage(self.manager, self._servicer)
                self._http = HttpPort(
                    settings.http_host, settings.http_port, self.metrics, self.ready, page
                )
            except OSError as error:
                raise OSError(
                    f"Cannot listen on {settings.http_host}:{settings.http_port} for HTTP: {error}"
                ) from error

    def ready(self) -> bool:
        """Returns whether every model answers, and the server is not about to stop."""
        return not self._draining and self.manager.ready()

    def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Takes no new calls, lets those under way finish, and frees the models.

        Args:
            grace: seconds after which calls that are still under way are cancelled.
        """
        self._draining = True
        self._health.enter_graceful_shutdown()
        grace = min(grace, threading.TIMEOUT_MAX)
        end = time.monotonic() + grace
        self._door.close()
        self.manager.halt()
        done = self._pool.wait(grace)
        self._door.linger()
        rest = max(0.0, end - time.monotonic())
        # Who watches the health was told, and never ends his call by himself.
        self._server.stop(min(rest, _GRACE_OF_WATCHERS) if done else rest).wait()
        self.manager.close()
        if self._log is not None:
            self._log.close()
        if self._http is not None:
            self._http.close()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _observe(self, model: str, api: str, seconds: float) -> None:
        self.metrics.runtime.add(model, api, "TF1", seconds=seconds)

    def _grpc_server(self) -> grpc.Server:
        settings = self._settings
        options = [
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            # Without this a second server on the same port starts, and takes half of the calls.
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.server(
            self._pool,
            interceptors=[self._door],
            options=options,
            maximum_concurrent_rpcs=settings.max_calls,
        )
        server.add_generic_rpc_handlers(self._servicer.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def _load(self, name: str, path: Path, steps: Steps) -> LoadedModel:
        """Loads and warms up a version; counts both."""
        try:
            check_complete(path)
            model = LoadedModel(name, path, self._settings.threads, steps)
        except ModelError:
            self.metrics.loads.add(str(path), "fail")
            raise
        start, status = time.perf_counter(), "OK"
        try:
            # Warming up leaves idle cores to calls.
            limits = dataclasses.replace(self._settings.limits, spread=1)
            warm_up(model, path, Runner(limits, self._observe, steps), steps)
        except ModelError:
            status = "FAILED"
            model.close()
            self.metrics.loads.add(str(path), "fail")
            raise
        finally:
            self.metrics.warmups.add(str(path), status, seconds=time.perf_counter() - start)
        self.metrics.loads.add(str(path), "success")
        return model


class FeedbackServer(EmbeddedServer):
    """Serves one model: the newest of its versions, or the one that is named.

    Args:
        model_base_path: folder of the versions, `<base>/<integer>`.
        model_name: name to serve it under.
        port: TCP port; 0 picks a free one.
        host: address to listen on.
        version: version to serve; when left out the highest that loads, now and later.
        settings: how.

    Raises:
        ModelError: when there is no version that loads.

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
        settings: Settings = Settings(),
    ):
        policy = VersionPolicy() if version is None else VersionPolicy.specific(version)
        config = ModelConfig(model_name, Path(model_base_path), policy)
        self._name = model_name
        super().__init__([config], port, host, settings)

    @property
    def version(self) -> int:
        """Version that answers callers who name none."""
        return self.manager.served(self._name)[-1]
