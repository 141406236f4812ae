"""The request log: what is sampled, its files, and what they are good for."""

import dataclasses
import shutil

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving import server_wire, wire
from serving.calls import Rejected
from serving.inference import Runner
from serving.loader import LoadedModel, ModelError
from serving.metrics import Metrics
from serving.records import read_records
from serving.request_log import MAX_RECORDS_A_FILE, RequestLog
from serving.server import FeedbackServer
from serving.tensors import from_proto
from serving.validation import InvalidRequest
from serving.warmup import MAX_RECORDS, WARMUP_FILE, warm_up
from tests.serving.calling import PATIENT, RecordingSteps, connected, files, refusal, wait_until
from tests.serving.scaled_model import example, publish, rank_request


def logs(directory):
    """The records of all files, as TF Serving's own messages."""
    return [
        prediction_log_pb2.PredictionLog.FromString(record)
        for path in files(directory)
        for record in read_records(path)
    ]


@pytest.fixture
def recorded(templates, tmp_path):
    """A base path, and the log of one request of each kind that its server answered."""
    base, directory = tmp_path / "scaled", tmp_path / "log"
    publish(templates[2], base, 2)
    settings = dataclasses.replace(PATIENT, request_log=directory, request_log_rate=1.0)
    records = {"example_list": {"examples": [example(1.5)]}}
    with FeedbackServer(base, "scaled", settings=settings) as server, connected(server) as caller:
        assert caller.scores([3]) == [6.0]
        for method in (server_wire.CLASSIFY, server_wire.REGRESS):
            spec = {"name": "scaled", "signature_name": method.name.lower()}
            caller(method, method.request(model_spec=spec, input=records))
        method = server_wire.MULTI_INFERENCE
        task = {"model_spec": {"name": "scaled", "signature_name": "regress"}}
        task["method_name"] = server_wire.REGRESS_METHOD
        caller(method, method.request(tasks=[task], input=records))
        refusal(caller, wire.PREDICT, rank_request([3], "none"))  # is not logged
        assert server.metrics.logged.value("scaled", "OK") <= 4
    return base, directory


def test_answered_requests_are_logged_as_they_came(recorded):
    found = logs(recorded[1])
    kinds = [log.WhichOneof("log_type") for log in found]
    assert kinds == ["predict_log", "classify_log", "regress_log", "multi_inference_log"]
    sent = rank_request([3])
    assert found[0].predict_log.request.SerializeToString(deterministic=True) == (
        sent.SerializeToString(deterministic=True)
    )
    for log in found:
        assert log.log_metadata.model_spec.version.value == 2
        assert log.log_metadata.sampling_config.sampling_rate == 1.0
        assert log.log_metadata.timestamp_secs > 1_700_000_000


def test_the_files_are_tfrecords_that_tensorflow_reads(recorded):
    paths = [str(path) for path in files(recorded[1])]
    assert sum(1 for _ in tf.data.TFRecordDataset(paths)) == 4


def test_a_logged_request_replays_to_the_same_scores(recorded):
    base, directory = recorded
    request = wire.PredictRequest.FromString(
        logs(directory)[0].predict_log.request.SerializeToString()
    )
    with FeedbackServer(base, "scaled", settings=PATIENT) as server, connected(server) as caller:
        scores = caller(wire.PREDICT, request).outputs["score"]
    assert from_proto(scores).tolist() == [[6.0]]


def test_a_file_of_the_log_warms_up_the_next_version(recorded, templates, tmp_path):
    (path,) = files(recorded[1])
    version = publish(templates[1], tmp_path / "next", 3)
    (version / WARMUP_FILE).parent.mkdir()
    shutil.copy(path, version / WARMUP_FILE)
    runs = []
    runner = Runner(observe=lambda model, api, seconds: runs.append(api))
    model = LoadedModel("scaled", version)
    assert warm_up(model, version, runner) == 4
    assert runs == ["Predict", "Classify", "Regress", "MultiInference"]
    with FeedbackServer(tmp_path / "next", "scaled", settings=PATIENT) as server:
        assert server.metrics.warmups.count(str(version), "OK") == 1


def test_a_load_hands_its_steps_on_to_the_runs_of_the_warm_up(recorded, templates, tmp_path):
    (path,) = files(recorded[1])
    version = publish(templates[1], tmp_path / "scaled", 1)
    with FeedbackServer(tmp_path / "scaled", "scaled", settings=PATIENT) as server:
        found = {}
        for warmed in (False, True):
            if warmed:
                (version / WARMUP_FILE).parent.mkdir()
                shutil.copy(path, version / WARMUP_FILE)
            steps = found[warmed] = RecordingSteps()
            server._load("scaled", version, steps).close()
    assert found[True].runs - found[False].runs == 4
    assert found[True].pauses - found[False].pauses == 4


class OddRunner:
    """Fails a request with one exception."""

    def __init__(self, error):
        self._error = error

    def predict(self, *_):
        raise self._error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large"), 8),
        (tf.errors.UnimplementedError(None, None, "odd"), 12),
        (InvalidRequest("wrong"), 3),
        (KeyError("a shape that nobody foresaw"), 13),
    ],
)
def test_whatever_a_warm_up_raises_fails_the_version_with_a_code(templates, tmp_path, error, code):
    version = publish(templates[1], tmp_path, 1)
    (version / WARMUP_FILE).parent.mkdir()
    write_warm_up(version, [rank_request([1])])
    model = LoadedModel("scaled", version)
    with pytest.raises(ModelError, match="record 1: ") as failed:
        warm_up(model, version, OddRunner(error))
    assert failed.value.code == code
    model.close()


def write_warm_up(version, requests):
    with tf.io.TFRecordWriter(str(version / WARMUP_FILE)) as writer:
        for request in requests:
            log = server_wire.PredictionLog()
            if request is not None:
                log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def test_warming_up_leaves_idle_cores_to_calls(templates, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.execution.usable_cores", lambda: 2)
    large = rank_request(list(range(600)))
    version = publish(templates[1], tmp_path / "scaled", 1)
    (version / WARMUP_FILE).parent.mkdir()
    write_warm_up(version, [large])
    with FeedbackServer(tmp_path / "scaled", "scaled", settings=PATIENT) as server:
        assert server.metrics.runtime.count("scaled", "Predict", "TF1") == 1
        with connected(server) as caller:
            caller(wire.PREDICT, large)
        assert server.metrics.runtime.count("scaled", "Predict", "TF1") == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([rank_request([1], "none")], "record 1: Serving signature key 'none'"),
        ([rank_request([1])] * (MAX_RECORDS + 1), f"more than {MAX_RECORDS}"),
        ([None], "record 1: expected a log of Predict"),
        (b"garbage that is longer than a header", "cut short, compressed, or no TFRecord"),
    ],
    ids=["fails", "too many", "empty", "damaged"],
)
def test_a_warm_up_that_fails_fails_the_version(templates, tmp_path, content, expected):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    bad = publish(templates[2], tmp_path / "hidden", 2)
    (bad / WARMUP_FILE).parent.mkdir()
    if isinstance(content, bytes):
        (bad / WARMUP_FILE).write_bytes(content)
    else:
        write_warm_up(bad, content)
    with pytest.raises(ModelError, match=expected):
        warm_up(LoadedModel("scaled", bad), bad, Runner())
    bad.rename(base / "2")
    with FeedbackServer(base, "scaled", settings=PATIENT) as server, connected(server) as caller:
        assert caller.version() == 1
        assert caller.states()[2][0] == server_wire.END


SPEC = wire.ModelSpec(name="scaled", version={"value": 1})


def test_a_share_of_the_requests_is_sampled(tmp_path):
    metrics = Metrics()
    log = RequestLog(tmp_path, 0.2, metrics)
    log._random.seed(0)
    for _ in range(500):
        log.offer(wire.PREDICT, rank_request([1]), SPEC)
        log.offer(wire.GET_MODEL_METADATA, wire.GetModelMetadataRequest(), SPEC)
    log.close()
    assert len(logs(tmp_path)) == metrics.logged.value("scaled", "OK")
    assert 60 < len(logs(tmp_path)) < 140
    assert {entry.log_metadata.sampling_config.sampling_rate for entry in logs(tmp_path)} == {0.2}


def test_files_hold_so_many_records_and_old_ones_are_removed(tmp_path):
    log = RequestLog(tmp_path, 1.0, Metrics(), keep_files=2)
    for index in range(2 * MAX_RECORDS_A_FILE + 10):
        log.offer(wire.PREDICT, rank_request([index]), SPEC)
        wait_until(lambda: not log._queue.full(), "the log keeps up")
    log.close()
    assert [sum(1 for _ in read_records(path)) for path in files(tmp_path)] == [1000, 10]
    log = RequestLog(tmp_path, 1.0, Metrics(), keep_files=9, max_file_bytes=1000)
    for index in range(12):
        log.offer(wire.PREDICT, rank_request([index]), SPEC)
    log.close()
    assert len(files(tmp_path)) > 3, "those of the first log are kept"
    assert all(path.stat().st_size < 1100 for path in files(tmp_path)[2:])


def test_what_cannot_be_kept_up_with_is_dropped_and_counted(tmp_path):
    metrics = Metrics()
    log = RequestLog(tmp_path, 1.0, metrics)
    large = rank_request(list(range(1_500_000)))  # two of them are more than may wait
    log._lock.acquire()  # holds the writer up
    log._lock.release()
    for _ in range(50):
        log.offer(wire.PREDICT, large, SPEC)
    log.close()
    dropped = metrics.logged.value("scaled", "RESOURCE_EXHAUSTED")
    assert dropped > 0
    assert len(logs(tmp_path)) + dropped == 50


def test_a_folder_that_vanishes_neither_stops_the_log_nor_its_server(tmp_path):
    metrics = Metrics()
    directory = tmp_path / "log"
    log = RequestLog(directory, 1.0, metrics, max_file_bytes=1)
    shutil.rmtree(directory)
    log.offer(wire.PREDICT, rank_request([1]), SPEC)
    wait_until(lambda: metrics.logged.value("scaled", "UNAVAILABLE") == 1, "it is counted")
    directory.mkdir()
    log.offer(wire.PREDICT, rank_request([1]), SPEC)
    wait_until(lambda: metrics.logged.value("scaled", "OK") == 1, "it goes on")
    log.close()
    assert len(logs(directory)) == 1
