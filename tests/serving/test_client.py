import subprocess
import sys

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import wire
from serving.client import FeedbackClient, ServingError
from tests.serving.tiny_model import CTR, DISLIKE, REQUEST, SCHEMA, numpy_scores, record
from tfrec_feedback.requests import RequestError
from tfrec_feedback.schema import Feature, Identity, Schema


@pytest.fixture
def predictions(client, monkeypatch) -> list:
    """The Predict messages the client sends, as they go out."""
    sent = []
    call = client._channel.call

    def spy(method, request, *args, **kwargs):
        if method is wire.PREDICT:
            sent.append(request)
        return call(method, request, *args, **kwargs)

    monkeypatch.setattr(client._channel, "call", spy)
    return sent


def test_scores_are_those_worked_out_by_hand(client):
    scores = client.rank(**REQUEST)
    assert scores["ctr"].tolist() == CTR
    assert scores["dislike"].tolist() == DISLIKE
    assert scores["ctr"].dtype == np.float32


def test_a_given_schema_gives_the_scores_of_the_derived_one(server):
    with FeedbackClient(server.target, "tiny", SCHEMA, version=7) as client:
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR


def test_rows_and_missing_histories_are_taken(client):
    rows = [{"item_id": 4, "tag": [], "price": 1}, {"item_id": 6, "tag": ["x"], "price": 2}]
    scores = client.rank({"hour": 1, "city": "x"}, None, rows)
    assert scores["ctr"].tolist() == [3.0, 4.0]
    assert scores["dislike"].tolist() == [1.0, 3.0]


def test_scores_can_be_changed_by_the_caller(client):
    scores = client.rank(**REQUEST)
    scores["ctr"] += 1.0
    assert scores["ctr"].tolist() == [56.0, 57.0, 52.5]


TAGS = st.lists(st.sampled_from(["graz", "wien", ""]), max_size=4)
ITEMS = st.tuples(st.integers(0, 99), TAGS, st.sampled_from([0.0, 0.5, 2.0]))


@st.composite
def requests(draw):
    items = draw(st.lists(ITEMS, max_size=7))
    clicks = draw(st.lists(st.tuples(st.integers(0, 99), TAGS), max_size=6))
    return {
        "context": {"hour": draw(st.integers(0, 23)), "city": draw(st.sampled_from(["graz", ""]))},
        "histories": {"click": {"item_id": [c[0] for c in clicks], "tag": [c[1] for c in clicks]}},
        "candidates": {
            "item_id": [i[0] for i in items],
            "tag": [i[1] for i in items],
            "price": [i[2] for i in items],
        },
    }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(many=st.lists(requests(), max_size=5), limit=st.integers(1, 8))
def test_packing_and_cutting_never_change_a_score(server, many, limit):
    with FeedbackClient(
        server.target, "tiny", SCHEMA, max_candidates_per_call=limit, timeout=30
    ) as client:
        answers = client.rank_many(many)
    assert len(answers) == len(many)
    for request, answer in zip(many, answers, strict=True):
        expected = numpy_scores(request)
        np.testing.assert_array_equal(answer["ctr"], expected["ctr"])
        np.testing.assert_array_equal(answer["dislike"], expected["dislike"])


def test_candidates_over_the_limit_are_sent_in_several_calls(client, predictions):
    client._core.limit = 2
    assert client.rank(**REQUEST)["ctr"].tolist() == CTR
    assert [request.inputs["item_id"].tensor_shape.dim[1].size for request in predictions] == [2, 1]
    clicks = [request.inputs["click_item_id"].tensor_content for request in predictions]
    assert clicks == [np.array([1, 2]).tobytes()] * 2


def test_small_requests_share_one_call(client, predictions):
    answers = client.rank_many([REQUEST] * 3)
    assert [answer["ctr"].tolist() for answer in answers] == [CTR] * 3
    assert len(predictions) == 1


def test_no_candidates_give_empty_scores_without_a_call():
    with FeedbackClient("127.0.0.1:1", "tiny", SCHEMA) as client:
        scores = client.rank(REQUEST["context"], None, [])
    assert {task: values.shape for task, values in scores.items()} == {"ctr": (0,), "dislike": (0,)}


def test_no_candidates_send_no_prediction_when_the_schema_is_the_servers(client, predictions):
    assert client.rank(REQUEST["context"], None, [])["ctr"].shape == (0,)
    assert client.rank_many([]) == []
    assert predictions == []


def test_a_request_that_does_not_fit_is_refused_before_it_is_sent(client, predictions):
    with pytest.raises(RequestError, match=r"missing \['city'\]"):
        client.rank({"hour": 1}, None, REQUEST["candidates"])
    nan = REQUEST["candidates"] | {"price": [0.5, float("nan"), 0.25]}
    with pytest.raises(RequestError, match="finite numbers"):
        client.rank(REQUEST["context"], None, nan)
    assert predictions == []


def test_a_schema_of_another_model_is_refused_on_first_use(server):
    other = Schema((Feature("age", Identity(9)),), (Feature("item_id", Identity(9)),))
    with (
        FeedbackClient(server.target, "tiny", other) as client,
        pytest.raises(ServingError, match=r"does not take \['age'\]") as error,
    ):
        client.rank({"age": 3}, None, {"item_id": [1]})
    assert error.value.code == grpc.StatusCode.FAILED_PRECONDITION


def test_the_schema_is_agreed_on_once(client, monkeypatch):
    client.rank(**REQUEST)
    monkeypatch.setattr(client._core, "metadata", lambda: pytest.fail("asked again"))
    assert client.rank(**REQUEST)["ctr"].tolist() == CTR


def test_records_are_scored_with_padding_cut_off(client, predictions):
    records = [record(3, [2, 4], [0.5, 0.25]), record(5, [8], [1.0]), record(1, [], [])]
    first, second, third = client.rank_examples(records)
    assert first["ctr"].tolist() == [4.0, 5.0]
    assert first["dislike"].tolist() == [0.5, 0.25]
    assert second["ctr"].tolist() == [9.0]
    assert third["ctr"].tolist() == []
    assert len(predictions) == 1
    client._core.limit = 2
    assert client.rank_examples(records)[1]["ctr"].tolist() == [9.0]
    assert len(predictions) == 3
    assert client.rank_examples([]) == []


def test_metadata_tells_version_and_signatures(client):
    metadata = client.metadata()
    assert (metadata.name, metadata.version) == ("tiny", 7)
    assert metadata.signatures["rank_examples"].inputs["examples"].shape == (-1,)


def test_ready_only_when_the_model_answers(client, server):
    assert client.ready()
    for target, model, version in [
        (server.target, "other", None),
        (server.target, "tiny", 6),
        ("127.0.0.1:1", "tiny", None),
    ]:
        with FeedbackClient(target, model, version=version) as other:
            assert not other.ready()


@pytest.mark.parametrize(
    ("model", "version", "expected"), [("other", None, "'other'"), ("tiny", 6, "version 6")]
)
def test_an_unknown_model_or_version_says_what_to_do(server, model, version, expected):
    with (
        FeedbackClient(server.target, model, version=version) as client,
        pytest.raises(ServingError, match=expected) as error,
    ):
        client.rank(**REQUEST)
    assert error.value.code == grpc.StatusCode.NOT_FOUND
    assert "Check the model name and version" in str(error.value)


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        FeedbackClient("localhost:1", "tiny", timeout=0)
    with pytest.raises(ValueError, match="must be positive"):
        FeedbackClient("localhost:1", "tiny", max_candidates_per_call=0)


def test_importing_the_client_loads_nothing_heavy():
    code = (
        "import sys, serving.client; "
        "heavy = {'tensorflow', 'tensorflow_serving', 'pandas', 'typer', 'rich'}; "
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
