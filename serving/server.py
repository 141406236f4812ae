"""The embedded server: models over gRPC, for laptops, tests and small deployments.

It answers what TF Serving answers (its prediction and model services, grpc.health.v1), so that a
client need not know which of the two it talks to.

    python -m serving.server --model-base-path models/dfn --model-name dfn --port 8500
"""

from __future__ import annotations

import gc
import json
import logging
import signal
import socket
from concurrent import futures
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from serving.embedded import EmbeddedServer, FeedbackServer
from serving.execution import Limits
from serving.loader import ModelError, Threads
from serving.manager import Watching
from serving.model_config import ConfigError, ModelConfig, VersionPolicy, read_config_file
from serving.settings import Settings
from serving.tls import TlsFiles

_LOG = logging.getLogger(__name__)
_ENDS = (signal.SIGTERM, signal.SIGINT)
_MODELS, _LIMITS, _LOADING = "Models", "Limits", "Loading"
_TLS, _WATCHED = "TLS", "Metrics, health and request log"


def option(text: str, panel: str, **more: Any) -> Any:
    """Returns an option of one panel of the help."""
    return typer.Option(help=text, rich_help_panel=panel, **more)


def main(  # noqa: PLR0913 - one for each option of the command
    model_base_path: Annotated[
        Path | None, option("Folder of the versions 1, 2, ...", _MODELS)
    ] = None,
    model_name: Annotated[str, option("Name to serve the model under.", _MODELS)] = "",
    version: Annotated[
        int | None, option("Serve this one. Default: the highest that loads.", _MODELS, min=0)
    ] = None,
    model_config_file: Annotated[
        Path | None,
        option(
            "Instead of the three above: TF Serving's model_config_list as text. Several models, "
            "version policies, labels. SIGHUP reads it again.",
            _MODELS,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 8500,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="Longest wait for calls under way when it is stopped.")
    ] = 30.0,
    workers: Annotated[
        int, option("Requests that run at a time; 0: twice the cores.", _LIMITS, min=0)
    ] = 0,
    max_concurrent_calls: Annotated[
        int,
        option("Calls under way or waiting; one more is RESOURCE_EXHAUSTED.", _LIMITS, min=1),
    ] = Settings.max_calls,
    max_message_bytes: Annotated[
        int, option("Largest message taken or sent.", _LIMITS, min=1)
    ] = Settings.max_message_bytes,
    max_candidates: Annotated[
        int, option("Candidates of a request, counting padding.", _LIMITS, min=1)
    ] = Limits.max_candidates,
    chunk_rows: Annotated[
        int,
        option(
            "Candidates run at once. Deadlines and cancelled calls are noticed between runs.",
            _LIMITS,
            min=1,
        ),
    ] = Limits.chunk_rows,
    spread: Annotated[
        int,
        option(
            "Cores that a run may use while no other run needs them; 0: all; 1: never but one.",
            _LIMITS,
            min=0,
        ),
    ] = Limits.spread,
    tensorflow_intra_op: Annotated[
        int, option("Threads for the parts of one operation.", _LIMITS, min=1)
    ] = Threads.intra_op,
    tensorflow_inter_op: Annotated[
        int, option("Threads for operations beside each other; 0: the cores.", _LIMITS, min=0)
    ] = Threads.inter_op,
    poll_seconds: Annotated[
        float,
        option("Pause between looks for new versions; 0: only on SIGHUP.", _LOADING, min=0),
    ] = Watching.poll_seconds,
    max_load_retries: Annotated[
        int, option("Tries after a version failed to load.", _LOADING, min=0)
    ] = Watching.max_load_retries,
    load_retry_seconds: Annotated[
        float, option("Pause before each of them.", _LOADING, min=0)
    ] = Watching.retry_seconds,
    tls_key: Annotated[Path | None, option("PEM file of the private key.", _TLS)] = None,
    tls_cert: Annotated[Path | None, option("PEM file of the certificate.", _TLS)] = None,
    tls_client_ca: Annotated[
        Path | None,
        option("PEM file of who vouches for clients: others are turned away.", _TLS),
    ] = None,
    http_port: Annotated[
        int | None,
        option(
            "Port of /metrics, /healthz, /readyz and, at /, a page to try requests on; 0: a free "
            "one. Default: none.",
            _WATCHED,
            min=0,
            max=65535,
        ),
    ] = None,
    http_host: Annotated[
        str, option("Its address; it has neither TLS nor a password.", _WATCHED)
    ] = "127.0.0.1",
    request_log: Annotated[
        Path | None,
        option("Folder for a sample of the requests, as warm-up files. Default: none.", _WATCHED),
    ] = None,
    request_log_rate: Annotated[
        float, option("Share of the requests that is written.", _WATCHED, min=0, max=1)
    ] = Settings.request_log_rate,
) -> None:
    """Serves models over gRPC until SIGTERM or Ctrl-C, then lets calls under way finish.

    New versions in a base path are loaded and swapped in without a failed call; SIGHUP looks for
    them at once, and reads --model-config-file again.

    When ready, one line of JSON on stdout says where: {"target": ..., "model": ..., "version": ...}
    """
    if (tls_key is None) != (tls_cert is None) or (tls_client_ca and not tls_key):
        raise typer.BadParameter("--tls-key and --tls-cert go together; --tls-client-ca needs both")
    settings = Settings(
        workers=workers,
        max_calls=max_concurrent_calls,
        max_message_bytes=max_message_bytes,
        limits=Limits(chunk_rows, max_candidates, spread),
        watching=Watching(poll_seconds, max_load_retries, load_retry_seconds),
        threads=Threads(tensorflow_intra_op, tensorflow_inter_op),
        tls=TlsFiles(tls_key, tls_cert, tls_client_ca) if tls_key and tls_cert else None,
        http_port=http_port,
        http_host=http_host,
        request_log=request_log,
        request_log_rate=request_log_rate,
    )
    if model_config_file is None:
        if model_base_path is None or not model_name:
            raise typer.BadParameter(
                "pass --model-base-path and --model-name, or --model-config-file"
            )
        policy = VersionPolicy() if version is None else VersionPolicy.specific(version)
        models = [ModelConfig(model_name, model_base_path, policy)]
    else:
        if model_base_path or model_name or version is not None:
            raise typer.BadParameter("--model-config-file names the models: pass it alone")
        models = []
    serve(models, model_config_file, (host, port), settings, drain_seconds)


def serve(
    models: list[ModelConfig],
    config_file: Path | None,
    address: tuple[str, int],
    settings: Settings,
    drain_seconds: float,
) -> None:
    """Serves until a signal ends it.

    Args:
        models: what to serve, unless there is a configuration file.
        config_file: where the models stand.
        address: host and port.
        settings: how to serve.
        drain_seconds: longest wait for calls under way.
    """
    console = Console(stderr=True)
    # TF Serving's own way of loading is deprecated in Python: nothing the reader can act on.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    # What is imported stays. To look through it for garbage would hold up every call for 0.1 s.
    gc.collect()
    gc.freeze()
    signals = _signals(*_ENDS, signal.SIGHUP)
    for number in _ENDS:
        signal.signal(number, _leave)
    try:
        models = read_config_file(config_file) if config_file else models
        server = EmbeddedServer(models, address[1], address[0], settings)
        server.start()
    except (ModelError, ConfigError, OSError) as error:
        console.print(f"Error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
    for number in _ENDS:
        signal.signal(number, lambda *_: None)  # from here on there are calls to finish first
    _announce(server, console)
    # On a thread: while versions load, the signal to stop is still heard.
    with futures.ThreadPoolExecutor(1, "reload") as reloads:
        while signals.recv(1)[0] == signal.SIGHUP:
            reloads.submit(_reload, server, config_file)
        console.print("Stopping: calls under way finish first.")
        server.stop(drain_seconds)


def _leave(*_: object) -> None:
    """Ends a server that has no callers yet."""
    raise SystemExit(0)


def _signals(*numbers: signal.Signals) -> socket.socket:
    """Returns a socket that the number of each of these signals is written to, as one byte.

    A signal that reaches another thread, or the moment before a wait begins, would not wake a main
    thread that waits for a lock.
    """
    numbers_out, numbers_in = socket.socketpair()
    numbers_in.setblocking(False)  # as Python asks of it
    signal.set_wakeup_fd(numbers_in.detach())
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return numbers_out


def _announce(server: EmbeddedServer, console: Console) -> None:
    names = server.manager.names()
    versions = {name: server.manager.served(name) for name in names}
    for name in names:
        version = versions[name][-1]
        console.print(f"Serving {name!r} version {version} at {server.target}", markup=False)
    ready = {
        "target": server.target,
        "model": names[0] if names else None,
        "version": versions[names[0]][-1] if names else None,
        "models": versions,
        "http_port": server.http_port,
    }
    typer.echo(json.dumps(ready))


def _reload(server: EmbeddedServer, config_file: Path | None) -> None:
    """Reads the configuration file again, or looks for versions; failures change nothing."""
    if config_file is None:
        server.manager.rescan(forget=True)
        return
    try:
        server.manager.reload(read_config_file(config_file))
        _LOG.info("The list of models was read again.")
    except (ConfigError, ModelError) as error:
        _LOG.error("The list of models stays as it was: %s", error)
    except Exception:  # such as a base path that may not be read: what is served goes on
        _LOG.exception("The list of models stays as it was.")


__all__ = ["FeedbackServer", "Settings", "main"]

if __name__ == "__main__":
    typer.run(main)
