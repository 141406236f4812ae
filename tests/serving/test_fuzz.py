"""Malformed requests: every one ends in a documented status, and the server goes on."""

import collections

import pytest

from benchmarks.serving_fuzz import Fuzzed, documented, fuzz
from benchmarks.serving_model import NAME, good_requests, publish_small_model
from serving.embedded import EmbeddedServer
from serving.loader import LoadedModel
from serving.model_config import ModelConfig
from tests.serving.calling import PATIENT

REQUESTS = 3000


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return publish_small_model(tmp_path_factory.mktemp("fuzz") / NAME)


def test_malformed_requests_end_in_a_documented_status(version):
    goods = good_requests(LoadedModel(NAME, version), 5, 20)
    found = Fuzzed()
    with EmbeddedServer([ModelConfig(NAME, version.parent)], settings=PATIENT) as server:
        fuzz(server.target, goods, REQUESTS, seed=0, found=found)
        assert server.ready()
    assert found.undocumented == []
    assert found.wrong == 0
    assert sum(found.statuses.values()) == REQUESTS
    # Were one of them missing, the requests would not reach what refuses them.
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL"} <= set(
        found.statuses
    )


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        ("INTERNAL", "The bytes are no PredictRequest.", True),
        ("INTERNAL", "The server failed; see its log.", False),
        ("UNKNOWN", "", False),
        ("UNAVAILABLE", "Socket closed", False),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", False),
        ("INVALID_ARGUMENT", "Missing ModelSpec", True),
    ],
)
def test_what_the_server_fails_at_is_not_documented(code, details, expected):
    assert documented(code, details) is expected


def test_a_fault_is_found():
    assert not Fuzzed(collections.Counter(), ["UNKNOWN"]).good()
    assert not Fuzzed(wrong=1).good()
    assert Fuzzed().good()
