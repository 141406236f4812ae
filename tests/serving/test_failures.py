"""What each failure answers, over real gRPC, as TF Serving does.

Corrupt, deleted and vanished versions: `test_versions.py`.
"""

import dataclasses
import signal
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import server_wire, wire
from serving.client import FeedbackClient
from serving.cores import usable_cores
from serving.embedded import EmbeddedServer
from serving.execution import Limits
from serving.model_config import ModelConfig, VersionPolicy
from serving.server import FeedbackServer
from serving.tensors import from_proto, to_proto
from tests.serving.calling import PATIENT, Caller, connected, in_flight, refusal, wait_until
from tests.serving.scaled_model import example, publish, rank_request
from tests.serving.test_server import start_command
from tfrec_feedback.export import publish as publish_model
from tfrec_feedback.models import build_model
from tfrec_feedback.schema import Feature, FeedbackSequence, Schema, Vocabulary

PREDICT = wire.PREDICT
EVERY_METHOD = (
    *(wire.PREDICT, server_wire.CLASSIFY, server_wire.REGRESS, server_wire.MULTI_INFERENCE),
    *(wire.GET_MODEL_METADATA, wire.GET_MODEL_STATUS, server_wire.RELOAD_CONFIG),
)
OF_ONE_MODEL = [m for m in EVERY_METHOD if "model_spec" in m.request.DESCRIPTOR.fields_by_name]
CHUNKS = 10  # of 10,000 candidates


@pytest.fixture(scope="module")
def base(templates, tmp_path_factory):
    base = tmp_path_factory.mktemp("failures") / "scaled"
    publish(templates[1], base, 1)
    return base


@pytest.fixture(scope="module")
def running(base) -> Iterator[FeedbackServer]:
    with FeedbackServer(base, "scaled", settings=PATIENT) as server:
        yield server


@pytest.fixture
def caller(running) -> Iterator[Caller]:
    with connected(running) as caller:
        yield caller
        assert caller.scores([3]) == [3.0], "the server must go on after the failure"


def changed(**inputs):
    """A good request, with some inputs changed or (None) taken out."""
    request = rank_request([3, 4])
    for name, proto in inputs.items():
        if proto is None:
            del request.inputs[name]
        else:
            request.inputs[name].CopyFrom(proto)
    return request


def task(method=server_wire.REGRESS_METHOD, signature="regress"):
    return {
        "model_spec": {"name": "scaled", "signature_name": signature},
        "method_name": method,
    }


def examples(*values):
    return {"example_list": {"examples": [example(x) for x in values]}}


@pytest.mark.parametrize("method", OF_ONE_MODEL, ids=lambda m: m.name)
def test_no_model_spec_or_name_is_invalid(caller, method):
    missing = refusal(caller, method, method.request())
    assert missing == ("INVALID_ARGUMENT", "Missing ModelSpec")
    unnamed = refusal(caller, method, method.request(model_spec={"signature_name": "x"}))
    assert unnamed == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")


def test_no_model_spec_or_name_of_a_task_is_invalid(caller):
    method = server_wire.MULTI_INFERENCE
    for tasks, expected in (
        ([], "Inference request must have at least one task."),
        ([{"method_name": server_wire.REGRESS_METHOD}], "Missing ModelSpec"),
        ([{"model_spec": {}}], "ModelSpec has no name specified."),
        ([task(), task() | {"model_spec": {"name": "other"}}], "same model name"),
    ):
        code, details = refusal(caller, method, method.request(tasks=tasks, input=examples(1.0)))
        assert (code, expected in details) == ("INVALID_ARGUMENT", True), details


@pytest.mark.parametrize("method", OF_ONE_MODEL, ids=lambda m: m.name)
@pytest.mark.parametrize("spec", [{"name": "other"}, {"name": "scaled", "version": {"value": 9}}])
def test_an_unknown_model_or_version_is_not_found(caller, method, spec):
    request = method.request(model_spec=spec)
    if method is wire.GET_MODEL_METADATA:
        request.metadata_field.append(wire.SIGNATURE_DEF)
    code, details = refusal(caller, method, request)
    assert (code, "9" in details or "other" in details) == ("NOT_FOUND", True), details


@pytest.mark.parametrize("method", OF_ONE_MODEL, ids=lambda m: m.name)
def test_an_unknown_version_label_is_invalid(caller, method):
    request = method.request(model_spec={"name": "scaled", "version_label": "beta"})
    expected = ("INVALID_ARGUMENT", "Unrecognized servable version label: beta")
    assert refusal(caller, method, request) == expected


def test_a_hundred_named_versions_that_are_not_loaded_are_not_found(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    labels = {f"v{number}": number for number in range(2, 102)} | {"stable": 1}
    config = ModelConfig("scaled", base, VersionPolicy.specific(*labels.values()), labels)
    with EmbeddedServer([config], settings=PATIENT) as server, connected(server) as caller:
        for number in range(2, 102):
            by_number = rank_request([1], version={"value": number})
            by_label = rank_request([1], version_label=f"v{number}")
            for request in (by_number, by_label):
                code, details = refusal(caller, PREDICT, request)
                assert (code, f"version {number} " in details) == ("NOT_FOUND", True)
        assert caller.scores([3], version_label="stable") == [3.0]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (wire.PREDICT, "FAILED_PRECONDITION"),
        (server_wire.CLASSIFY, "INVALID_ARGUMENT"),
        (server_wire.REGRESS, "INVALID_ARGUMENT"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_unknown_signature_is_refused(caller, method, expected):
    request = method.request(model_spec={"name": "scaled", "signature_name": "top"})
    if method is not wire.PREDICT:
        request.input.CopyFrom(method.request(input=examples(1.0)).input)
    code, details = refusal(caller, method, request)
    assert (code, "top" in details) == (expected, True)


def test_a_signature_of_another_call_is_refused(caller):
    method = server_wire.MULTI_INFERENCE
    for tasks, expected in (
        ([task(signature="top")], "INVALID_ARGUMENT"),
        ([task(signature="classify")], "INVALID_ARGUMENT"),
        ([task(), task()], "INVALID_ARGUMENT"),
        ([task(method="tensorflow/serving/predict")], "UNIMPLEMENTED"),
    ):
        request = method.request(tasks=tasks, input=examples(1.0))
        assert refusal(caller, method, request)[0] == expected
    for method, signature in ((server_wire.REGRESS, "classify"), (server_wire.CLASSIFY, "regress")):
        spec = {"name": "scaled", "signature_name": signature}
        request = method.request(model_spec=spec, input=examples(1.0))
        assert refusal(caller, method, request)[0] == "INVALID_ARGUMENT"
        request = method.request(model_spec=spec | {"signature_name": method.name.lower()})
        assert refusal(caller, method, request) == ("INVALID_ARGUMENT", "Input is empty.")


def test_missing_and_extra_inputs_are_named(caller):
    request = changed(price=None, cost=to_proto(np.zeros((1, 2), np.float32)))
    code, details = refusal(caller, PREDICT, request)
    assert code == "INVALID_ARGUMENT"
    assert "Sent: ['cost', 'item_id', 'num_candidates', 'rounds']" in details
    assert "Missing but required: ['price']" in details
    assert "Sent extra: ['cost']" in details


@pytest.mark.parametrize("names", [["ctr"], ["score", "score"]])
def test_an_unknown_or_repeated_output_filter_is_invalid(caller, names):
    request = rank_request([3])
    request.output_filter.extend(names)
    code, details = refusal(caller, PREDICT, request)
    assert (code, names[0] in details) == ("INVALID_ARGUMENT", True)


def tensor(dtype, sizes, **values):
    shape = {"dim": [{"size": size} for size in sizes]}
    return wire.TensorProto(dtype=dtype, tensor_shape=shape, **values)


@pytest.mark.parametrize(
    "proto",
    [
        tensor(9, [1, 2], tensor_content=b"\x01"),
        tensor(9, [1, 2], int64_val=[1, 2, 3]),
        tensor(9, [1, -2], int64_val=[1, 2]),
        tensor(9, [1, 1 << 62, 1 << 62], int64_val=[1]),
        tensor(99, [1, 2], int64_val=[1, 2]),
        wire.TensorProto(dtype=9, tensor_shape={"unknown_rank": True}, int64_val=[1]),
        tensor(1, [1, 2], float_val=[1.0, 2.0]),
        tensor(7, [1, 2], string_val=[b"1", b"2"]),
        tensor(9, [2], int64_val=[1, 2]),
        tensor(9, [1, 2, 1], int64_val=[1, 2]),
        tensor(9, [2, 2], int64_val=[1, 2, 3, 4]),
        tensor(9, [1, 3], int64_val=[1, 2, 3]),
        wire.TensorProto(),
    ],
    ids=[
        *("short content", "too many values", "negative size", "too large", "unknown type"),
        *("unknown rank", "wrong dtype", "strings", "rank 1", "rank 3", "unequal rows"),
        *("unequal candidates", "nothing"),
    ],
)
def test_a_tensor_that_does_not_fit_is_invalid_and_named(caller, proto):
    code, details = refusal(caller, PREDICT, changed(item_id=proto))
    assert (code, "item_id" in details) == ("INVALID_ARGUMENT", True), details


def test_an_empty_batch_gives_no_scores(caller):
    request = changed(
        rounds=to_proto(np.zeros(0, np.int64)),
        item_id=to_proto(np.zeros((0, 5), np.int64)),
        price=to_proto(np.zeros((0, 5), np.float32)),
        num_candidates=to_proto(np.zeros(0, np.int64)),
    )
    assert from_proto(caller(PREDICT, request).outputs["score"]).shape == (0, 5)
    assert caller.scores([]) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_invalid_and_named(caller, value):
    price = to_proto(np.array([[0.0, value]], np.float32))
    code, details = refusal(caller, PREDICT, changed(price=price))
    assert (code, "'price' holds NaN or infinity" in details) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("method", EVERY_METHOD, ids=lambda m: m.name)
def test_garbage_bytes_are_internal(caller, method):
    garbage = caller._channel.unary_unary(method.path)
    assert refusal(garbage, b"\xff\xff\xff\xff", timeout=10)[0] == "INTERNAL"


def test_a_record_that_is_none_is_invalid_however_long_it_is(base_path):
    request = wire.PredictRequest(model_spec={"name": "tiny", "signature_name": "rank_examples"})
    with (
        FeedbackServer(base_path, "tiny", settings=PATIENT) as server,
        connected(server) as caller,
    ):
        for record in (b"\xff\xff", b"\xff" * 100_000, b"garbage"):
            request.inputs["examples"].CopyFrom(to_proto(np.array([record], object)))
            for timeout in (10, None):  # with and without a deadline graphs are run differently
                code, details = refusal(caller, PREDICT, request, timeout=timeout)
                assert (code, "Could not parse example" in details) == ("INVALID_ARGUMENT", True)
                # Three times as many in a header, of which gRPC drops some from 8 KiB on.
                assert len(details.encode()) <= 1_100


def test_ids_outside_the_vocabulary_are_scored_as_such(tmp_path):
    names = ("graz", "wien", "linz")
    vocabulary = Vocabulary(dtype="string", tokens=names)
    schema = Schema(
        context=(Feature("city", vocabulary),),
        candidate=(Feature("item_id", vocabulary, table="item"),),
        histories=tuple(
            FeedbackSequence(name, ("item_id",), 3) for name in ("click", "unclick", "dislike")
        ),
    )
    publish_model(build_model("dfn", schema, embedding_dim=4, num_heads=1), tmp_path, version=1)
    with (
        FeedbackServer(tmp_path, "dfn", settings=PATIENT) as server,
        FeedbackClient(server.target, "dfn") as client,
    ):
        items = {"item_id": ["nowhere", "graz", "", "\N{SNOWMAN}"]}
        scores = client.rank({"city": "atlantis"}, {"click": {"item_id": ["no"]}}, items)["ctr"]
        assert np.isfinite(scores).all()
        assert scores[0] == scores[2] == scores[3] != scores[1]


def test_ten_thousand_candidates_are_scored_in_chunks(caller, running):
    before = running.metrics.runtime.count("scaled", "Predict", "TF1")
    items = np.arange(10_000)
    assert caller.scores(items) == items.tolist()
    after = running.metrics.runtime.count("scaled", "Predict", "TF1")
    # Idle cores share a chunk, in parts of 240 candidates or more.
    assert CHUNKS <= after - before <= CHUNKS * min(usable_cores(), 4)


def test_more_candidates_than_the_limit_are_invalid(base):
    settings = dataclasses.replace(PATIENT, limits=Limits(max_candidates=100))
    with FeedbackServer(base, "scaled", settings=settings) as server, connected(server) as caller:
        assert len(caller.scores(np.arange(100))) == 100
        code, details = refusal(caller, PREDICT, rank_request(np.arange(101)))
        assert (code, "more than the 100" in details) == ("INVALID_ARGUMENT", True)


def test_a_passed_deadline_ends_the_run_within_a_chunk(caller, running):
    before = running.metrics.runtime.count("scaled", "Predict", "TF1")
    slow = rank_request(np.arange(10_000), "slow_rank", rounds=50_000)
    assert refusal(caller, PREDICT, slow, timeout=0.3)[0] == "DEADLINE_EXCEEDED"
    wait_until(lambda: not in_flight(running), "the run ends")
    chunks = running.metrics.runtime.count("scaled", "Predict", "TF1") - before
    assert chunks < CHUNKS, "the rest of the chunks must not be run"


def test_a_cancelled_call_ends_the_run_within_a_chunk(caller, running):
    before = running.metrics.runtime.count("scaled", "Predict", "TF1")
    slow = rank_request(np.arange(10_000), "slow_rank", rounds=50_000)
    call = caller.stub(PREDICT).future(slow, timeout=60)
    wait_until(lambda: in_flight(running), "the call is under way")
    call.cancel()
    wait_until(lambda: not in_flight(running), "the run ends")
    chunks = running.metrics.runtime.count("scaled", "Predict", "TF1") - before
    assert chunks < CHUNKS, "the rest of the chunks must not be run"


def test_calls_over_the_limit_are_resource_exhausted(base):
    settings = dataclasses.replace(PATIENT, max_calls=2, workers=1)
    with FeedbackServer(base, "scaled", settings=settings) as server, connected(server) as caller:
        slow = rank_request([1], "slow_rank", rounds=300_000)
        calls = [caller.stub(PREDICT).future(slow, timeout=60) for _ in range(2)]
        wait_until(lambda: in_flight(server), "a call is under way")
        codes = [refusal(caller, PREDICT, rank_request([3]))[0] for _ in range(5)]
        assert codes == ["RESOURCE_EXHAUSTED"] * 5
        assert [from_proto(c.result().outputs["score"]).tolist() for c in calls] == [[[1.0]]] * 2
        assert caller.scores([3]) == [3.0]


def test_a_message_over_the_limit_is_resource_exhausted(base):
    settings = dataclasses.replace(PATIENT, max_message_bytes=10_000)
    with FeedbackServer(base, "scaled", settings=settings) as server, connected(server) as caller:
        assert len(caller.scores(np.arange(700))) == 700
        code = refusal(caller, PREDICT, rank_request(np.arange(1000)))[0]
        assert code == "RESOURCE_EXHAUSTED"
        assert caller.scores([3]) == [3.0]


def test_a_thousand_connections_are_all_answered(running):
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(running.target, options) for _ in range(1000)]
    try:
        calls = [
            Caller(channel).stub(PREDICT).future(rank_request([number]), timeout=120)
            for number, channel in enumerate(channels)
        ]
        scores = [from_proto(call.result().outputs["score"])[0, 0] for call in calls]
        assert scores == list(range(1000))
    finally:
        for channel in channels:
            channel.close()


def test_a_draining_server_finishes_its_calls_and_refuses_new_ones(base):
    server = FeedbackServer(base, "scaled", settings=PATIENT)
    server.start()
    with connected(server) as caller, connected(server) as other:
        assert other.scores([3]) == [3.0]
        slow = rank_request([5], "slow_rank", rounds=600_000)
        call = caller.stub(PREDICT).future(slow, timeout=60)
        wait_until(lambda: in_flight(server), "the call is under way")
        assert server.ready()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wait_until(lambda: not server.ready(), "the server drains")
        wait_until(lambda: refused(other), "new calls are refused")
        assert not call.done(), "the call must still be under way"
        assert from_proto(call.result().outputs["score"]).tolist() == [[5.0]]
        stopping.join()


def refused(caller) -> bool:
    try:
        caller.scores([3])
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_exits_with_0(base_path, number):
    process = start_command(base_path, "--port", "0")
    assert process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_server_that_stops_does_not_wait_for_who_watches_its_health(base):
    server = FeedbackServer(base, "scaled", settings=PATIENT)
    server.start()
    with grpc.insecure_channel(server.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stopping = threading.Thread(target=server.stop, args=(float("inf"),), daemon=True)
        stopping.start()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        stopping.join(60)
        assert not stopping.is_alive()
