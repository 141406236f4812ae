"""What both clients, the blocking one and the one for asyncio, do alike."""

import asyncio
import inspect
import logging
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest

from serving.aio import AsyncFeedbackClient
from serving.client import FeedbackClient, ServingError
from serving.client_base import ClientBase
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import CTR, REQUEST
from tfrec_feedback.requests import RequestError


class Awaited:
    """An asyncio client whose methods wait, so that one test serves both."""

    def __init__(self, *args, **options):
        self._runner = asyncio.Runner()
        self._client = AsyncFeedbackClient(*args, **options)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*args, **kwargs):
            return await method(*args, **kwargs)

        return lambda *args, **kwargs: self._runner.run(call(*args, **kwargs))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[FeedbackClient, Awaited], ids=["blocking", "asyncio"])
def make(request):
    return request.param


@pytest.fixture
def fake():
    with FakeServer(labels={"canary": 9}, bias={9: 100.0}) as server:
        yield server


def test_both_clients_have_the_same_methods_and_arguments():
    for name, method in vars(FeedbackClient).items():
        if not name.startswith("_"):
            blocking = set(inspect.signature(method).parameters) - {"cancellation"}
            assert set(inspect.signature(getattr(AsyncFeedbackClient, name)).parameters) == blocking
    for client in (FeedbackClient, AsyncFeedbackClient):
        assert client.__init__ is ClientBase.__init__


def test_the_real_model_gives_the_scores_worked_out_by_hand(make, server):
    with make(server.target, "tiny", version=7) as client:
        assert client.ready()
        assert client.metadata().version == 7
        scores = client.rank(**REQUEST)
        assert scores["ctr"].tolist() == CTR
        both = client.rank_many([REQUEST, REQUEST | {"histories": {}}])
        np.testing.assert_array_equal(both[0]["dislike"], scores["dislike"])
        assert both[1]["ctr"].tolist() == [25.0, 26.0, 21.5]


def test_candidates_are_cut_and_put_together_again(make, fake):
    with make(fake.target, "tiny", max_candidates_per_call=2) as client:
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR
    assert len(fake.requests) == 2


class Rolling(FakeServer):
    """Answers the first call, for the schema, and then by one version after the other."""

    plan = ()

    @property
    def version(self):
        number = len(self.requests)
        return self.plan[min(number, len(self.plan) - 1)]


@pytest.mark.parametrize(
    ("plan", "messages"), [([7, 7, 9, 9], 3), ([9, 9, 9, 7, 7, 7], 2), ([7, 7, 9, 7, 7], 4)]
)
def test_a_request_is_scored_by_one_version_alone(make, plan, messages):
    server = Rolling(bias={9: 100.0})
    server.plan = plan  # the schema's, then a message's each
    with server, make(server.target, "tiny", max_candidates_per_call=2) as client:
        scores = client.rank(**REQUEST)["ctr"] - np.array(CTR)
    assert scores.tolist() == [100.0 if plan[messages] == 9 else 0.0] * 3
    assert len(server.requests) == messages


def test_versions_that_keep_taking_turns_are_an_error(make):
    server = Rolling()
    server.plan = [7, 9] * 20
    with server, make(server.target, "tiny", max_candidates_per_call=2) as client:
        with pytest.raises(ServingError, match="took turns .* one request of 2 messages"):
            client.rank(**REQUEST)


def test_a_timeout_may_be_for_ever(make, fake):
    with make(fake.target, "tiny", timeout=float("inf")) as client:
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR
        assert client.rank(**REQUEST, timeout=1e12)["ctr"].tolist() == CTR


def test_a_label_names_the_version(make, fake):
    with make(fake.target, "tiny", label="canary") as client:
        assert client.rank(**REQUEST)["ctr"].tolist() == [value + 100 for value in CTR]
    assert {request.model_spec.version_label for request in fake.requests} == {"canary"}
    with (
        make(fake.target, "tiny", label="none") as client,
        pytest.raises(ServingError, match="INVALID_ARGUMENT: Unrecognized version label"),
    ):
        client.rank(**REQUEST)


def test_number_and_label_together_are_refused():
    with pytest.raises(ValueError, match="by its number or its label, got 3 and 'canary'"):
        FeedbackClient("localhost:1", "tiny", version=3, label="canary")


def test_a_call_may_have_its_own_deadline(make, fake):
    fake.delay = 5.0
    with make(fake.target, "tiny", timeout=60) as client:
        client.metadata()
        start = time.monotonic()
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED") as error:
            client.rank(**REQUEST, timeout=0.3)
        assert time.monotonic() - start < 4
        assert error.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(ValueError, match="timeout must be positive"):
            client.rank(**REQUEST, timeout=0)


def test_all_calls_share_one_connection(make, fake):
    with make(fake.target, "tiny") as client:
        for _ in range(5):
            client.rank(**REQUEST)
    assert len(fake.requests) == 5
    assert len(fake.peers) == 1


def test_passing_trouble_is_told_of_and_overcome(make, fake):
    fake.script = [(grpc.StatusCode.UNAVAILABLE, "down")]
    records = []
    with make(fake.target, "tiny", log=records.append) as client:
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR
    told = [(r.method, r.signature, r.attempt, r.code, r.version) for r in records]
    assert told == [
        ("GetModelMetadata", "", 1, "OK", 7),
        ("Predict", "serving_default", 1, "UNAVAILABLE", None),
        ("Predict", "serving_default", 2, "OK", 7),
    ]
    assert all(r.seconds > 0 and r.request_bytes > 0 for r in records)
    assert records[1].response_bytes == 0 < records[2].response_bytes


def test_a_logger_hears_of_calls_but_never_what_was_in_them(make, fake, caplog):
    fake.script = [(grpc.StatusCode.INVALID_ARGUMENT, "city 'graz' is secret")]
    logger = logging.getLogger("ranker")
    with (
        caplog.at_level(logging.DEBUG, "ranker"),
        make(fake.target, "tiny", log=logger) as client,
        pytest.raises(ServingError),
    ):
        client.rank(**REQUEST)
    levels = [(r.levelname, r.name) for r in caplog.records if r.name == "ranker"]
    assert levels == [("DEBUG", "ranker"), ("WARNING", "ranker")]
    assert "INVALID_ARGUMENT" in caplog.text
    assert "graz" not in caplog.text and "secret" not in caplog.text


def test_a_hook_that_fails_costs_nobody_the_scores(make, fake, caplog):
    def hook(record):
        raise RuntimeError("disk full")

    with make(fake.target, "tiny", log=hook) as client:
        assert client.rank(**REQUEST)["ctr"].tolist() == CTR
    assert "The logging hook of a client failed" in caplog.text


def test_a_closed_client_says_that_it_is(make, fake):
    client = make(fake.target, "tiny")
    with client:
        client.rank(**REQUEST)
        client.close()
        client.close()
        with pytest.raises(ServingError, match="CANCELLED: The client is closed"):
            client.rank(**REQUEST)


def test_wrong_requests_and_models_are_told_apart(make, fake):
    with make(fake.target, "tiny") as client:
        with pytest.raises(RequestError, match=r"missing \['city'\]"):
            client.rank({"hour": 1}, None, REQUEST["candidates"])
        with pytest.raises(ServingError, match="FAILED_PRECONDITION.*no signature 'top_k'"):
            client.top_k({"hour": 1, "city": ""})
    with make(fake.target, "other") as client:
        assert not client.ready()
        with pytest.raises(ServingError, match="NOT_FOUND"):
            client.rank(**REQUEST)


def test_closing_a_client_ends_the_calls_of_other_threads(fake):
    fake.delay = 20.0
    client = FeedbackClient(fake.target, "tiny", timeout=60)
    client.metadata()
    threading.Timer(0.3, client.close).start()
    start = time.monotonic()
    with pytest.raises(ServingError, match="CANCELLED: The client is closed"):
        client.rank(**REQUEST)
    assert time.monotonic() - start < 10


def test_closing_an_asyncio_client_is_an_error_for_its_calls_and_no_cancellation(fake):
    fake.delay = 20.0

    async def scenario():
        client = AsyncFeedbackClient(fake.target, "tiny", timeout=60)
        call = asyncio.create_task(client.rank(**REQUEST))
        while not fake.requests:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ServingError, match="CANCELLED: The client is closed"):
            await call

    asyncio.run(asyncio.wait_for(scenario(), 15))


def test_a_cancelled_task_ends_its_call_on_the_server(fake):
    fake.delay = 20.0

    async def scenario():
        async with AsyncFeedbackClient(fake.target, "tiny", timeout=60) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.rank(**REQUEST)

    asyncio.run(scenario())
    assert fake.cancelled.wait(10)


def test_asyncio_calls_run_side_by_side(fake):
    fake.delay = 0.4

    async def scenario():
        async with AsyncFeedbackClient(fake.target, "tiny", timeout=30) as client:
            await client.metadata()
            start = time.monotonic()
            answers = await asyncio.gather(*(client.rank(**REQUEST) for _ in range(8)))
            return answers, time.monotonic() - start

    answers, seconds = asyncio.run(scenario())
    assert [answer["ctr"].tolist() for answer in answers] == [CTR] * 8
    assert seconds < 8 * 0.4 / 2


def test_importing_the_client_alone_loads_no_pydantic():
    code = "import sys, serving.client; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["client", "client_command", "aio", "page", "loadtest"])
def test_what_the_base_install_runs_loads_nothing_heavy(module):
    code = (
        f"import sys, serving.{module}; "
        "heavy = {'tensorflow', 'tensorflow_serving', 'pandas', 'typer', 'rich', 'matplotlib'}; "
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
