"""The page of a served model, in this process and over the real model."""

import re
from urllib.parse import urlencode

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving import wire
from serving.client import FeedbackClient, ServingError
from serving.page import pretty
from serving.page_model import ModelPage, local_scorer
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import CTR, REQUEST, SCHEMA
from tfrec_feedback.requests import encode_requests


def wire_record(request):
    """A request as a golden record: every tensor of the schema, without padding."""
    features = {}
    for name, array in encode_requests(SCHEMA, [request]).items():
        values = np.ravel(array[0]).tolist()
        if array.dtype == object:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif array.dtype.kind == "f":
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        features[name] = feature
    features["golden/ctr"] = tf.train.Feature(float_list=tf.train.FloatList(value=CTR))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def publish(folder, requests):
    extra = folder / "assets.extra"
    extra.mkdir(parents=True)
    SCHEMA.to_json(extra / "schema.json")
    with tf.io.TFRecordWriter(str(extra / "golden_requests.tfrecord")) as writer:
        for request in requests:
            writer.write(wire_record(request))
    return folder


def answers_of(client):
    """Answers with a server's own bytes, as its methods would."""

    def answer(method, request):
        return client._channel.call(method, request, client._deadline(None))

    return answer


@pytest.fixture
def answer():
    with FakeServer() as server, FeedbackClient(server.target, "tiny") as client:
        yield answers_of(client)


def text_of(page, method="GET", path="/", body=b""):
    status, _, content = page.handle(method, path, body)
    return status, content.decode()


def test_a_model_is_scored_by_the_methods_of_its_server(answer):
    assert local_scorer("tiny", answer)(REQUEST)["ctr"].tolist() == CTR
    with pytest.raises(ServingError, match="NOT_FOUND"):
        local_scorer("other", answer)(REQUEST)


def test_the_page_holds_the_golden_requests_of_the_version_that_answers(tmp_path, answer):
    folders = [publish(tmp_path / "3", [REQUEST]), publish(tmp_path / "4", [REQUEST] * 2)]
    page = ModelPage("tiny", lambda: folders[0], answer)
    status, text = text_of(page)
    assert status == 200 and "<h1>tiny, version 3</h1>" in text
    assert len(re.findall("<option", text)) == 2
    _, text = text_of(page, path="/?golden=0")
    assert "graz" in text
    folders.pop(0)
    _, text = text_of(page)
    assert "<h1>tiny, version 4</h1>" in text and len(re.findall("<option", text)) == 3
    body = urlencode({"request": pretty(REQUEST)}).encode()
    status, text = text_of(page, "POST", "/score", body)
    assert status == 200 and "56.0000" in text and "click: 2 events" in text


@pytest.mark.parametrize("damage", ["no schema", "another schema", "cut short", "nothing"])
def test_what_is_missing_beside_a_model_costs_the_golden_requests_alone(tmp_path, answer, damage):
    folder = tmp_path / "3"
    if damage != "nothing":
        publish(folder, [REQUEST])
    extra = folder / "assets.extra"
    if damage == "no schema":
        (extra / "schema.json").unlink()
    elif damage == "another schema":
        (extra / "schema.json").write_text("{}")
    elif damage == "cut short":
        golden = extra / "golden_requests.tfrecord"
        golden.write_bytes(golden.read_bytes()[:-6])
    page = ModelPage("tiny", lambda: folder, answer)
    status, text = text_of(page)
    assert status == 200 and "<option" not in text
    status, text = text_of(page, "POST", "/score", urlencode({"request": pretty(REQUEST)}).encode())
    assert status == 200 and "56.0000" in text


def test_a_refusal_of_the_server_is_shown(tmp_path):
    def answer(method, request):
        assert method in (wire.GET_MODEL_METADATA, wire.PREDICT)
        raise ServingError(grpc.StatusCode.NOT_FOUND, "The model was unloaded.")

    page = ModelPage("tiny", lambda: tmp_path / "3", answer)
    body = urlencode({"request": pretty(REQUEST)}).encode()
    status, text = text_of(page, "POST", "/score", body)
    assert status == 502 and "The model was unloaded." in text
