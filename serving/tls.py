"""Certificates of the server."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc


@dataclasses.dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        key: private key of the server.
        certificate: its certificate, followed by those that vouch for it.
        client_ca: certificates that vouch for clients. With it, clients without a certificate are
            turned away (mutual TLS).
    """

    key: Path
    certificate: Path
    client_ca: Path | None = None


def credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Reads the files.

    Raises:
        OSError: when one cannot be read or used, or key and certificate do not belong together.
    """
    key, certificate = _pem(files.key), _pem(files.certificate)
    ca = _pem(files.client_ca) if files.client_ca else None
    # gRPC itself would say no more than that it cannot listen.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _usable(
        f"{files.key} and {files.certificate} are no key and its certificate",
        lambda: context.load_cert_chain(files.certificate, files.key, password=b""),
    )
    if files.client_ca:
        _usable(
            f"{files.client_ca} holds no certificates",
            lambda: context.load_verify_locations(files.client_ca),
        )
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=ca, require_client_auth=ca is not None
    )


def _usable(problem: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"{problem}: {error}. Pass PEM files; keys without a password.") from error


def _pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}.") from error
    if b"-----BEGIN " not in data:
        raise OSError(f"{path} is no PEM file: it lacks a line -----BEGIN ...-----.")
    return data
