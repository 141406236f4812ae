import subprocess
import threading
import time

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import (
    Cancellation,
    FeedbackClient,
    RetryPolicy,
    ServingError,
    TlsConfig,
)
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import CTR, REQUEST


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_are_between_jitter_and_their_bound(failures, jitter):
    policy = RetryPolicy(first_pause=0.1, growth=3, longest_pause=5, jitter=jitter)
    whole = min(5.0, 0.1 * 3.0 ** min(failures - 1, 100))
    assert (1 - jitter) * whole - 1e-9 <= policy.pause(failures) <= whole


def test_pauses_of_clients_that_failed_together_differ():
    assert len({RetryPolicy().pause(1) for _ in range(20)}) > 10


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_a_policy_cannot_name_a_code_that_stays(code):
    with pytest.raises(ValueError, match=f"may name .*'UNAVAILABLE'.*got .*{code}"):
        RetryPolicy(codes={code})
    assert not RetryPolicy().allows(code, "", attempts=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_attempts": 0}, "max_attempts must be None or at least 1, got 0"),
        ({"first_pause": 0}, "first_pause must be a positive time, got 0"),
        ({"longest_pause": float("inf")}, "longest_pause must be a positive time, got inf"),
        ({"first_pause": float("nan")}, "first_pause must be a positive time, got nan"),
        ({"growth": 0.5}, "growth must be from 1 to 10, got 0.5"),
        ({"jitter": 2}, "jitter must be from 0 to 1, got 2"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        RetryPolicy(**options)


def test_a_client_tries_as_often_as_its_policy_says():
    with FakeServer(script=[(grpc.StatusCode.UNAVAILABLE, "down")] * 9) as server:
        policy = RetryPolicy(max_attempts=3, first_pause=0.001)
        with (
            FeedbackClient(server.target, "tiny", retry=policy) as client,
            pytest.raises(ServingError, match=r"UNAVAILABLE: down \(Tried 3 times\.\)"),
        ):
            client.rank(**REQUEST)
        assert len(server.requests) == 3


def test_only_the_codes_of_the_policy_are_tried_again():
    with FakeServer(script=[(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")]) as server:
        policy = RetryPolicy(codes={"UNAVAILABLE"})
        with (
            FeedbackClient(server.target, "tiny", retry=policy) as client,
            pytest.raises(ServingError, match="RESOURCE_EXHAUSTED: busy"),
        ):
            client.rank(**REQUEST)
        assert len(server.requests) == 1


def test_a_cancelled_call_ends_here_and_on_the_server():
    with FakeServer(delay=20.0) as server, FeedbackClient(server.target, "tiny") as client:
        stop, start = Cancellation(), time.monotonic()
        threading.Timer(0.3, stop.cancel).start()
        with pytest.raises(ServingError, match="CANCELLED") as error:
            client.rank(**REQUEST, timeout=60, cancellation=stop)
        assert error.value.code == grpc.StatusCode.CANCELLED
        assert time.monotonic() - start < 10
        assert server.cancelled.wait(10)
        with pytest.raises(ServingError, match="CANCELLED"):
            client.rank(**REQUEST, cancellation=stop)


def test_a_cancelled_pause_is_not_waited_for():
    with FakeServer(script=[(grpc.StatusCode.UNAVAILABLE, "down")] * 9) as server:
        stop, start = Cancellation(), time.monotonic()
        policy = RetryPolicy(first_pause=30, longest_pause=30)
        with FeedbackClient(server.target, "tiny", retry=policy, timeout=100) as client:
            threading.Timer(0.3, stop.cancel).start()
            with pytest.raises(ServingError, match="CANCELLED"):
                client.rank(**REQUEST, cancellation=stop)
        assert time.monotonic() - start < 10


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and a server's and a client's certificate that it signed."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        openssl(
            "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        (folder / "names").write_text("subjectAltName=DNS:ranker.example")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return folder


def server_credentials(folder, mutual):
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    roots = (folder / "ca.pem").read_bytes() if mutual else None
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=mutual)


def test_tls_and_mutual_tls_connect_those_who_know_each_other(certificates):
    known = {"root_certificates": certificates / "ca.pem", "server_name": "ranker.example"}
    own = {
        "client_key": certificates / "client.key",
        "client_certificate": certificates / "client.pem",
    }
    for mutual in (False, True):
        with FakeServer(credentials=server_credentials(certificates, mutual)) as server:
            tls = TlsConfig(**known, **(own if mutual else {}))
            with FeedbackClient(server.target, "tiny", tls=tls) as client:
                assert client.rank(**REQUEST)["ctr"].tolist() == CTR


@pytest.mark.parametrize("tls", ["no", "of strangers", "without a client certificate"])
def test_a_connection_that_is_not_trusted_says_so(certificates, tls):
    name = {"server_name": "ranker.example"}
    config = {
        "no": None,
        "of strangers": TlsConfig(root_certificates=certificates / "client.pem", **name),
        "without a client certificate": TlsConfig(
            root_certificates=certificates / "ca.pem", **name
        ),
    }[tls]
    with (
        FakeServer(credentials=server_credentials(certificates, mutual=True)) as server,
        FeedbackClient(server.target, "tiny", tls=config, timeout=0.5) as client,
        pytest.raises(ServingError) as error,
    ):
        client.rank(**REQUEST)
    assert error.value.code == grpc.StatusCode.UNAVAILABLE
    if tls == "of strangers":
        assert "do not agree on TLS" in str(error.value)


def test_wrong_tls_files_are_refused_when_the_client_is_made(tmp_path):
    with pytest.raises(ValueError, match="needs both client_certificate and client_key"):
        TlsConfig(client_key=tmp_path / "key.pem")
    with pytest.raises(ValueError, match=r"none\.pem cannot be read: No such file"):
        FeedbackClient("a:1", "m", tls=TlsConfig(root_certificates=tmp_path / "none.pem"))
    (tmp_path / "key.pem").write_text("swordfish")
    with pytest.raises(ValueError, match="is not PEM") as error:
        FeedbackClient("a:1", "m", tls=TlsConfig(root_certificates=tmp_path / "key.pem"))
    assert "swordfish" not in str(error.value)
