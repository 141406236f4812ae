import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest

from serving import wire
from serving.client import FeedbackClient, ServingError
from serving.server import FeedbackServer, Settings
from serving.tensors import from_proto, to_proto
from tests.serving.calling import PATIENT
from tests.serving.tiny_model import CTR, REQUEST


def count_to(target: str, iterations: int):
    """Runs the `slow` signature, to the end of `iterations` rounds of a loop."""
    request = wire.PredictRequest(model_spec={"name": "tiny", "signature_name": "slow"})
    request.inputs["iterations"].CopyFrom(to_proto(np.array([iterations])))
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            wire.PREDICT.path,
            wire.PREDICT.request.SerializeToString,
            wire.PREDICT.response.FromString,
        )
        return from_proto(call(request, timeout=60).outputs["counted"]).tolist()


def start_command(base_path, *options):
    command = [sys.executable, "-m", "serving.server", "--model-name", "tiny", *options]
    return subprocess.Popen(
        [*command, "--model-base-path", str(base_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_says_where_it_listens_and_finishes_its_calls_on_sigterm(base_path):
    process = start_command(base_path, "--port", "0")
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["model"] == "tiny"
        assert ready["version"] == 7
        answers = []
        count_to(ready["target"], 1)
        caller = threading.Thread(target=lambda: answers.append(count_to(ready["target"], 300_000)))
        caller.start()
        time.sleep(0.3)
        assert caller.is_alive(), "the call must be under way when the signal comes"
        process.send_signal(signal.SIGTERM)
        caller.join()
        assert answers == [[300_000]]
        assert process.wait(timeout=20) == 0
        with FeedbackClient(ready["target"], "tiny", timeout=0.2) as client:
            assert not client.ready()
    finally:
        process.kill()
        process.communicate()


def test_the_command_without_a_model_says_so_and_fails(tmp_path):
    process = start_command(tmp_path, "--port", "0")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert f"No version in {tmp_path}" in errors.replace("\n", "")
    assert "Traceback" not in errors


def test_a_taken_port_is_refused(base_path, server):
    port = int(server.target.rpartition(":")[2])
    second = FeedbackServer(base_path, "tiny", port=port)
    with pytest.raises(OSError, match=rf"Cannot listen on 127\.0\.0\.1:{port}"):
        second.start()
    second.stop()


def test_a_server_that_cannot_listen_leaves_nothing_behind(base_path, server, tmp_path):
    _, _, port = server.target.rpartition(":")
    settings = dataclasses.replace(PATIENT, request_log=tmp_path, request_log_rate=1.0)
    second = FeedbackServer(base_path, "tiny", port=int(port), settings=settings)
    with pytest.raises(OSError, match="the port is taken"):
        second.start()
    assert second.manager.served("tiny") == []
    assert "request log" not in {thread.name for thread in threading.enumerate()}


def test_a_stopped_server_frees_its_port(base_path):
    server = FeedbackServer(base_path, "tiny", settings=Settings(workers=1))
    port = server.start()
    assert server.target == f"127.0.0.1:{port}"
    server.stop()
    with FeedbackServer(base_path, "tiny", port=port, version=7) as again:
        assert again.version == 7
        with FeedbackClient(again.target, "tiny") as client:
            assert client.rank(**REQUEST)["ctr"].tolist() == CTR


def test_a_message_over_the_limit_is_resource_exhausted(base_path):
    with (
        FeedbackServer(base_path, "tiny", settings=Settings(max_message_bytes=4000)) as server,
        FeedbackClient(server.target, "tiny") as client,
    ):
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR
        many = {name: column * 200 for name, column in REQUEST["candidates"].items()}
        with pytest.raises(ServingError) as error:
            client.rank(REQUEST["context"], None, many)
        assert error.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_many_callers_at_once_all_get_their_own_scores(server):
    scores = {}

    def call(hour: int) -> None:
        with FeedbackClient(server.target, "tiny") as client:
            context = {"hour": hour, "city": "graz"}
            scores[hour] = client.rank(context, None, REQUEST["candidates"])["ctr"].tolist()

    callers = [threading.Thread(target=call, args=(hour,)) for hour in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    # No clicks: the hour plus half the item_ids 10, 12 and 3.
    assert scores == {hour: [hour + 5.0, hour + 6.0, hour + 1.5] for hour in range(20)}
