"""Classify, Regress and MultiInference, reloads, metrics and the HTTP port, as callers see them."""

import dataclasses
import http.client
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving import served_model, server_wire, wire
from serving.loader import ModelError
from serving.manager import ModelManager, Watching
from serving.model_config import ConfigError, ModelConfig, VersionPolicy, read_config_file
from serving.server import FeedbackServer
from serving.tensors import from_proto, to_proto
from tests.serving.calling import PATIENT, QUICK, FakeModel, connected, refusal, wait_until
from tests.serving.scaled_model import example, publish, rank_request
from tests.serving.tiny_model import REQUEST, SCHEMA, export_tiny_model, record

WITH_HTTP = dataclasses.replace(PATIENT, http_port=0)


@pytest.fixture(scope="module")
def base(templates, tmp_path_factory):
    base = tmp_path_factory.mktemp("surface") / "scaled"
    publish(templates[2], base, 2)
    return base


@pytest.fixture(scope="module")
def running(base):
    with FeedbackServer(base, "scaled", settings=WITH_HTTP) as server:
        yield server


@pytest.fixture
def stub(running):
    with grpc.insecure_channel(running.target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def filled(message, signature, *values):
    """A message of TF Serving's own with Examples of these values."""
    message.model_spec.name, message.model_spec.signature_name = "scaled", signature
    for value in values:
        message.input.example_list.examples.add().ParseFromString(example(value))
    return message


def test_classify_gives_every_example_its_classes(stub):
    request = filled(classification_pb2.ClassificationRequest(), "classify", 0.5, -2.0)
    response = stub.Classify(request, timeout=10)
    found = [[(c.label, c.score) for c in r.classes] for r in response.result.classifications]
    assert found == [[("low", -0.5), ("high", 0.5)], [("low", 2.0), ("high", -2.0)]]
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "classify"


def test_regress_gives_every_example_a_value(stub):
    request = filled(regression_pb2.RegressionRequest(), "regress", *range(1000))
    response = stub.Regress(request, timeout=10)
    assert [r.value for r in response.result.regressions] == [2.0 * x for x in range(1000)]


def test_a_context_holds_for_every_example(stub):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "scaled", "regress"
    listed = request.input.example_list_with_context
    listed.context.ParseFromString(example(1.5))
    listed.examples.add()
    listed.examples.add().ParseFromString(example(4.0))
    response = stub.Regress(request, timeout=10)
    assert [r.value for r in response.result.regressions] == [3.0, 8.0]


def test_multi_inference_runs_every_task_on_the_same_examples(stub):
    request = inference_pb2.MultiInferenceRequest()
    for name in ("regress", "classify"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
        task.model_spec.name, task.model_spec.signature_name = "scaled", name
    request.input.example_list.examples.add().ParseFromString(example(3.0))
    first, second = stub.MultiInference(request, timeout=10).results
    assert [r.value for r in first.regression_result.regressions] == [6.0]
    assert second.classification_result.classifications[0].classes[1].score == 3.0
    assert [r.model_spec.version.value for r in (first, second)] == [2, 2]


def reload_request(*models):
    request = model_management_pb2.ReloadConfigRequest()
    for name, base, *labels in models:
        config = request.config.model_config_list.config.add(name=name, base_path=str(base))
        config.model_version_policy.all.SetInParent()
        for label, version in labels:
            config.version_labels[label] = version
    return request


def test_a_reload_replaces_the_list_of_models_or_nothing(templates, tmp_path):
    base, other = tmp_path / "scaled", tmp_path / "other"
    publish(templates[1], base, 1)
    publish(templates[2], other, 5)
    with (
        FeedbackServer(base, "scaled", settings=PATIENT) as server,
        connected(server) as caller,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        for wrong, code in (
            (reload_request(("scaled", base), ("more", tmp_path / "none")), "INTERNAL"),
            (reload_request(("scaled", base, ("stable", 9))), "FAILED_PRECONDITION"),
            (reload_request(("scaled", base), ("scaled", other)), "INVALID_ARGUMENT"),
            (reload_request(("", base)), "INVALID_ARGUMENT"),
            (model_management_pb2.ReloadConfigRequest(), "INVALID_ARGUMENT"),
        ):
            assert refusal(stub.HandleReloadConfigRequest, wrong, timeout=10)[0] == code
            assert server.manager.names() == ["scaled"]
            assert caller.scores([3]) == [3.0]
        both = reload_request(("scaled", base, ("stable", 1)), ("other", other))
        assert stub.HandleReloadConfigRequest(both, timeout=10).status.error_code == 0
        assert caller.scores([3], version_label="stable") == [3.0]
        assert caller.scores([3], model="other") == [6.0]
        stub.HandleReloadConfigRequest(reload_request(("other", other)), timeout=10)
        assert caller.scores([3], model="other") == [6.0]
        assert refusal(caller, wire.PREDICT, rank_request([3]))[0] == "NOT_FOUND"


def test_one_call_at_a_time_changes_the_list(templates, tmp_path, monkeypatch):
    base, other = tmp_path / "scaled", tmp_path / "other"
    publish(templates[1], base, 1)
    publish(templates[2], other, 5)
    begun, goes_on = threading.Event(), threading.Event()

    def waits(*_):
        begun.set()
        assert goes_on.wait(60)

    with (
        FeedbackServer(base, "scaled", settings=PATIENT) as server,
        connected(server) as caller,
        grpc.insecure_channel(server.target) as channel,
    ):
        monkeypatch.setattr("serving.embedded.warm_up", waits)
        change = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        first = change.future(reload_request(("scaled", base), ("other", other)), timeout=60)
        assert begun.wait(60)
        code, details = refusal(change, reload_request(("other", other)), timeout=60)
        assert code == "UNAVAILABLE" and "Another call is changing it" in details
        assert caller.scores([3]) == [3.0]
        goes_on.set()
        assert first.result().status.error_code == 0
        assert server.manager.names() == ["other", "scaled"]
        change(reload_request(("other", other)), timeout=60)  # the door is open again
        assert server.manager.names() == ["other"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_config_list {", "no readable list"),
        ("", "Expected a model_config_list"),
        ('model_config_list { config { name: "a" } }', "needs a name and a base_path"),
        (
            'model_config_list { config { name: "a" base_path: "b" model_platform: "torch" } }',
            "'torch' is not supported",
        ),
    ],
)
def test_a_config_file_that_makes_no_sense_is_refused(tmp_path, text, expected):
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_config_file(path)


def test_a_config_file_of_tf_servings_is_read(tmp_path):
    path = tmp_path / "models.config"
    path.write_text("""
        # comments are allowed
        model_config_list {
          config {
            name: "dfn" base_path: "/models/dfn" model_platform: "tensorflow"
            model_version_policy { specific { versions: 3 versions: 4 } }
            version_labels { key: "stable" value: 3 }
            version_labels { key: "canary" value: 4 }
          }
          config { name: "dumn" base_path: "/models/dumn" }
        }
    """)
    dfn, dumn = read_config_file(path)
    assert dfn.policy == VersionPolicy.specific(3, 4)
    assert dfn.labels == {"stable": 3, "canary": 4}
    assert (dumn.name, str(dumn.base_path), dumn.policy) == (
        *("dumn", "/models/dumn"),
        VersionPolicy(),
    )


def get(server, path, data=None):
    address = f"http://127.0.0.1:{server.http_port}{path}"
    try:
        with urllib.request.urlopen(address, data, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(server):
    families = text_string_to_metric_families(get(server, "/metrics")[1])
    return {  # the parser puts `_total` behind the names of counters
        (sample.name.removesuffix("_total"), *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_have_tf_servings_names_and_count_calls_by_status(running):
    ok = (
        ":tensorflow:serving:request_count",
        ("model_name", "scaled"),
        ("status", "OK"),
    )
    refused = (*ok[:2], ("status", "FAILED_PRECONDITION"))
    with connected(running) as caller:
        caller.scores([1])  # before the first call there is no series
        refusal(caller, wire.PREDICT, rank_request([1], "none"))
        before = samples(running)
        for _ in range(3):
            caller.scores([1])
        for _ in range(2):
            refusal(caller, wire.PREDICT, rank_request([1], "none"))
        refusal(caller, wire.PREDICT, rank_request([1], model="made up"))
    after = samples(running)
    assert after[ok] - before[ok] == 3
    assert after[refused] - before[refused] == 2
    assert "made up" not in str(after), "callers must not be able to add series"
    names = {key[0] for key in after}
    for latency, labels in (
        ("request_latency", {"model_name", "API", "entrypoint"}),
        ("runtime_latency", {"model_name", "API", "runtime"}),
    ):
        assert f":tensorflow:serving:{latency}_bucket" in names
        counts = [key for key in after if key[0] == f":tensorflow:serving:{latency}_count"]
        assert {label for key in counts for label, _ in key[1:]} == labels
    assert ":tensorflow:cc:saved_model:load_attempt_count" in names
    assert ":tensorflow:serving:model_warmup_latency_count" in names
    assert get(running, "/metrics") == get(running, "/monitoring/prometheus/metrics")


def test_health_over_http_and_grpc_follows_the_server(base):
    server = FeedbackServer(base, "scaled", settings=WITH_HTTP)
    server.start()
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest()).status == 1
        assert get(server, "/readyz") == get(server, "/healthz") == (200, "ok\n")
        server._draining = True
        assert get(server, "/readyz")[0] == 503
        assert get(server, "/healthz")[0] == 200
        server.stop()
    with pytest.raises(OSError, match="refused"):
        get(server, "/healthz")


def test_http_refuses_what_it_does_not_have(running):
    assert get(running, "/metrics", b"x")[0] == 405
    assert get(running, "/none")[0] == 404
    assert get(running, "/score", b"x" * (2 << 20))[0] == 413


def test_heads_of_pages_can_be_asked_for(running):
    for path, status in (("/", 200), ("/healthz", 200), ("/metrics", 200), ("/none", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=30)
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0
        connection.close()


def test_the_scoring_page_ranks_with_the_served_version(tmp_path):
    base = tmp_path / "tiny"
    export_tiny_model(base / "7")
    (base / "7" / "assets.extra").mkdir()
    SCHEMA.to_json(base / "7" / "assets.extra" / "schema.json")
    settings = dataclasses.replace(QUICK, http_port=0)
    with FeedbackServer(base, "tiny", settings=settings) as server:
        status, page = get(server, "/")
        assert (status, "tiny, version 7" in page) == (200, True)
        form = urllib.parse.urlencode({"request": json.dumps(REQUEST)}).encode()
        status, page = get(server, "/score", form)
        assert status == 200
        shown = re.findall(r"\b5[0-9]\.[0-9]+", page)
        assert [float(x) for x in shown[:3]] == sorted([55.0, 56.0, 51.5], reverse=True)
        assert get(server, "/score", b"request=nonsense")[0] == 400
        export_tiny_model(tmp_path / ".tmp")
        (tmp_path / ".tmp").rename(base / "8")
        wait_until(lambda: server.version == 8, "version 8 serves")
        assert "tiny, version 8" in get(server, "/")[1]


def test_large_requests_of_every_signature_are_cut_and_put_together(tmp_path):
    export_tiny_model(tmp_path / "7")
    records = [record(hour % 24, [2] * (hour % 5), [0.5] * (hour % 5)) for hour in range(700)]
    request = wire.PredictRequest(model_spec={"name": "tiny", "signature_name": "rank_examples"})
    request.inputs["examples"].CopyFrom(to_proto(np.array(records, object)))
    with FeedbackServer(tmp_path, "tiny", settings=PATIENT) as server, connected(server) as caller:
        scores = from_proto(caller(wire.PREDICT, request).outputs["ctr"])
        assert server.metrics.runtime.count("tiny", "Predict", "TF1") == 44  # 16 records each
    assert scores.shape == (700, 4)
    for hour, row in enumerate(scores):
        assert row[: hour % 5].tolist() == [hour % 24 + 1.0] * (hour % 5)


def test_a_hundred_corrupt_versions_are_each_tried_once(templates, tmp_path, monkeypatch):
    monkeypatch.setattr(served_model, "_REMEMBERED", 20)
    for version in range(1, 102):
        (tmp_path / str(version)).mkdir()
        (tmp_path / str(version) / "saved_model.pb").write_bytes(b"")
    tries = []

    def load(name, path, steps):
        tries.append(int(path.name))
        if tries[-1] > 1:
            raise ModelError("damaged")
        return FakeModel()

    manager = ModelManager([ModelConfig("scaled", tmp_path)], load, Watching(0, 0, 0))
    assert sorted(tries) == list(range(1, 102))
    for _ in range(3):
        manager.rescan()
    assert len(tries) == 101, "none is tried at every look"
    assert manager.served("scaled") == [1]
    states = manager.statuses(wire.ModelSpec(name="scaled"))
    assert [s.version for s in states if s.state == server_wire.END] == list(range(101, 1, -1))
    manager.close()
