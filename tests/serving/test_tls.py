"""TLS and mutual TLS of the embedded server, and what it must never write down."""

import dataclasses
import logging
import subprocess

import grpc
import pytest

from serving import wire
from serving.client import FeedbackClient, ServingError
from serving.policy import TlsConfig
from serving.server import FeedbackServer
from serving.tls import TlsFiles
from tests.serving.calling import PATIENT, files
from tests.serving.tiny_model import CTR, REQUEST

NAME = {"server_name": "ranker.example"}


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """An authority, and a server's and a client's certificate that it signed."""
    folder = tmp_path_factory.mktemp("pem")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "names").write_text("subjectAltName=DNS:ranker.example")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        request = ["-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"]
        openssl("req", *key, *request)
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return folder


def with_tls(pem, mutual, **more):
    tls = TlsFiles(pem / "server.key", pem / "server.pem", pem / "ca.pem" if mutual else None)
    return dataclasses.replace(PATIENT, tls=tls, **more)


def of_client(pem, own):
    more = {"client_key": pem / "client.key", "client_certificate": pem / "client.pem"}
    return TlsConfig(root_certificates=pem / "ca.pem", **NAME, **(more if own else {}))


@pytest.mark.parametrize("mutual", [False, True])
def test_callers_with_the_right_certificates_are_answered(pem, base_path, mutual):
    with (
        FeedbackServer(base_path, "tiny", settings=with_tls(pem, mutual)) as server,
        FeedbackClient(server.target, "tiny", tls=of_client(pem, own=mutual)) as client,
    ):
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR


def test_callers_without_are_turned_away(pem, base_path):
    with FeedbackServer(base_path, "tiny", settings=with_tls(pem, mutual=True)) as server:
        for tls in (None, of_client(pem, own=False)):
            with (
                FeedbackClient(server.target, "tiny", tls=tls, timeout=0.5) as client,
                pytest.raises(ServingError) as error,
            ):
                client.rank(**REQUEST)
            assert error.value.code == grpc.StatusCode.UNAVAILABLE


def test_files_that_are_no_certificates_are_refused(pem, base_path, tmp_path):
    (tmp_path / "key").write_text("no key")
    for key, expected in (
        (tmp_path / "none", "none cannot be read: No such file"),
        (tmp_path / "key", "key is no PEM file"),
    ):
        settings = dataclasses.replace(PATIENT, tls=TlsFiles(key, pem / "server.pem"))
        with pytest.raises(OSError, match=expected):
            FeedbackServer(base_path, "tiny", settings=settings)


def test_files_that_do_not_belong_together_are_named(pem, base_path, tmp_path):
    (tmp_path / "junk").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    server = pem / "server.key", pem / "server.pem"
    for chosen, expected in (
        ((pem / "client.key", pem / "server.pem"), "client.key and .*server.pem are no key and"),
        ((pem / "server.pem", pem / "server.key"), "are no key and its certificate"),
        ((pem / "server.key", tmp_path / "junk"), "junk are no key and its certificate"),
        ((*server, tmp_path / "junk"), "junk holds no certificates"),
    ):
        settings = dataclasses.replace(PATIENT, tls=TlsFiles(*chosen))
        with pytest.raises(OSError, match=expected):
            FeedbackServer(base_path, "tiny", settings=settings)


def test_no_secret_is_written_to_any_log(pem, base_path, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    settings = with_tls(pem, True, request_log=tmp_path, request_log_rate=1.0)
    secret = "Bearer c2VjcmV0LXRva2Vu"
    with FeedbackServer(base_path, "tiny", settings=settings) as server:
        credentials = grpc.ssl_channel_credentials(
            *((pem / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
        )
        override = [("grpc.ssl_target_name_override", "ranker.example")]
        with (
            grpc.secure_channel(server.target, credentials, override) as channel,
            FeedbackClient(server.target, "tiny", tls=of_client(pem, own=True)) as client,
        ):
            client.rank(**REQUEST)
            for data in (b"\xff\xff", b""):
                call = channel.unary_unary(wire.PREDICT.path)
                with pytest.raises(grpc.RpcError):
                    call(data, timeout=10, metadata=[("authorization", secret)])
    written = caplog.text.encode() + b"".join(path.read_bytes() for path in files(tmp_path))
    assert files(tmp_path)
    keys = (pem / "server.key").read_text().splitlines()[1:-1]
    for hidden in (secret, *keys):
        assert hidden.encode() not in written
