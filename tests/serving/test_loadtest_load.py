import gc
import math
import time

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import loadtest_load
from serving.loadtest_load import Load, closed_loop, open_loop, poisson_arrivals, send
from serving.loadtest_samples import Sample, percentile, summary
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import CTR, REQUEST
from tfrec_feedback.requests import RequestError


def load(server, **options):
    return Load(server.target, "tiny", **{"payloads": [REQUEST], "seconds": 1.0, **options})


def test_arrivals_are_poisson_and_repeat_with_their_seed():
    moments = np.array(list(poisson_arrivals(200.0, 50.0, seed=1)))
    gaps = np.diff(moments)
    assert len(moments) == pytest.approx(10_000, rel=0.05)
    # Of independent arrivals the gaps deviate by as much as their mean, and 1/e are longer.
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
    assert np.mean(gaps > gaps.mean()) == pytest.approx(math.exp(-1), abs=0.02)
    assert moments.max() < 50.0
    assert list(poisson_arrivals(200.0, 50.0, seed=1)) == moments.tolist()
    assert list(poisson_arrivals(200.0, 50.0, seed=2)) != moments.tolist()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.sampled_from([50, 90, 99, 99.9]))
def test_a_percentile_is_a_value_that_so_many_are_not_above(values, percent):
    found = percentile(values, percent)
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert found in values
    assert np.mean([value <= found for value in values]) >= percent / 100 - 1e-9
    assert found == expected


def test_latency_counts_from_the_intended_moment_and_failed_calls_count():
    samples = [Sample(0, 1.0, 1.4, 1.5, "OK", 7), Sample(0, 1.5, 1.5, 3.5, "DEADLINE_EXCEEDED")]
    found = summary(samples)
    assert found["latency_ms"]["p50"] == 500 and found["latency_ms"]["max"] == 2000
    assert (found["calls"], found["failed"], found["versions"]) == (2, 1, [7])
    assert found["codes"] == {"DEADLINE_EXCEEDED": 1, "OK": 1}
    assert found["throughput"] == pytest.approx(1 / 3.5, abs=1e-3)
    assert summary(samples, since=3.0)["throughput"] == 2.0
    assert summary([])["latency_ms"]["p99"] is None


def test_a_stall_is_charged_to_every_call_that_came_meanwhile():
    """Coordinated omission: one caller, and a server that takes longer than the gaps."""
    with FakeServer(delay=0.1) as server:
        samples = open_loop(load(server, seconds=1.5), rate=30.0, threads=1)
        waiting = closed_loop(load(server, seconds=1.0), concurrency=1)
    assert len(samples) == len(list(poisson_arrivals(30.0, 1.5, 0))) > 25
    # Every call takes 0.1 s, 30 a second come: the last ones wait for all those before them.
    assert samples[-1].latency > 0.7 * (len(samples) * 0.1 - 1.5)
    assert samples[-1].latency > 5 * (samples[-1].done - samples[-1].sent)
    # Callers that wait see nothing of it.
    assert percentile([s.latency for s in waiting], 50) < 0.5 * samples[-1].latency


def test_no_collection_of_garbage_looks_through_what_was_there_before_the_load(monkeypatch):
    passed_over = []

    def watched(*arguments):
        passed_over.append(gc.get_freeze_count())
        return send(*arguments)

    monkeypatch.setattr(loadtest_load, "send", watched)
    before = gc.get_freeze_count()
    with FakeServer() as server:
        open_loop(load(server, seconds=0.2), rate=50.0, threads=2)
    opening, *calls = passed_over  # the first opens the connection, before the clock starts
    assert opening == before and calls and min(calls) > before + 1000
    assert gc.get_freeze_count() == 0


def test_calls_that_a_server_was_too_slow_for_are_counted_as_failed(monkeypatch):
    monkeypatch.setattr(loadtest_load, "_DRAIN_SECONDS", 0.0)
    with FakeServer(delay=0.2) as server:
        samples = open_loop(load(server, seconds=1.0, timeout=0.5), rate=60.0, threads=1)
    assert len(samples) == len(list(poisson_arrivals(60.0, 1.0, 0))) > 40
    found = summary(samples)
    assert found["codes"]["NOT_ANSWERED"] == found["failed"] > 20
    # They waited from the moment they were meant to be sent until the load was given up.
    left = [s for s in samples if s.code == "NOT_ANSWERED"]
    assert {s.done for s in left} == {left[0].done}
    assert left[0].done >= 1.4 and min(s.latency for s in left) > 0.4


def test_what_was_passed_over_before_a_load_stays_so():
    gc.freeze()
    try:
        with FakeServer() as server:
            closed_loop(load(server, max_calls=1), 1)
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()


def test_a_load_that_cannot_begin_leaves_nothing_behind(monkeypatch):
    def fails():
        raise RuntimeError("can't start new thread")

    with FakeServer() as server:
        callers = loadtest_load._Callers(load(server), 2, lambda moment: (0, moment))
        monkeypatch.setattr(callers._threads[1], "start", fails)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            callers.__enter__()
        callers._threads[0].join(60)
    assert not callers._threads[0].is_alive()
    assert gc.get_freeze_count() == 0


def test_the_closed_loop_keeps_as_many_calls_under_way_as_asked():
    with FakeServer(delay=0.1) as server:
        one = summary(closed_loop(load(server), 1))
        four = summary(closed_loop(load(server), 4))
    assert one["failed"] == four["failed"] == 0
    assert 2.0 < four["throughput"] / one["throughput"] < 5.0


def test_payloads_take_turns_and_answers_are_kept_where_asked_for():
    other = REQUEST | {"histories": {}}
    with FakeServer() as server:
        samples = closed_loop(
            load(server, payloads=[REQUEST, other], max_calls=5, keep_scores=True), 1
        )
        unkept = closed_loop(load(server, max_calls=1), 1)
    assert [s.index for s in samples] == [0, 1, 0, 1, 0]
    assert samples[2].scores["ctr"].tolist() == CTR
    assert samples[3].scores["ctr"].tolist() == [25.0, 26.0, 21.5]
    assert {s.version for s in samples} == {7}
    assert unkept[0].scores is None


def test_failures_are_counted_and_never_tried_again():
    busy = [(grpc.StatusCode.UNAVAILABLE, "")] * 2
    # The first Predict opens the connection, before the clock starts.
    with FakeServer(script=busy, script_after=1) as server:
        found = summary(closed_loop(load(server, max_calls=4), 1))
    assert found["codes"] == {"OK": 2, "UNAVAILABLE": 2}


def test_a_load_ends_in_time_whatever_the_server_does():
    with FakeServer(stall_after=1) as server:
        start = time.monotonic()
        bounded = load(server, seconds=0.5, timeout=0.5)
        found = summary(open_loop(bounded, rate=40.0, threads=4))
    assert time.monotonic() - start < 15
    assert found["failed"] == found["calls"] > 5
    assert set(found["codes"]) == {"DEADLINE_EXCEEDED"}


@pytest.mark.parametrize(
    "options",
    [{"payloads": []}, {"seconds": 0}, {"seconds": 1e9}, {"max_calls": 0}, {"max_calls": 10**9}],
)
def test_loads_without_bounds_are_refused(options):
    with pytest.raises(ValueError, match=r"no requests|A load lasts up to"):
        Load("localhost:1", "tiny", **{"payloads": [REQUEST], **options})


def test_a_request_that_does_not_fit_ends_the_run():
    with FakeServer() as server:
        with pytest.raises(RequestError, match="missing"):
            closed_loop(load(server, payloads=[{"context": {}, "candidates": []}]), 2)
        with pytest.raises(RequestError, match="missing"):
            closed_loop(load(server, payloads=[REQUEST, {"context": {}, "candidates": []}]), 2)
        with pytest.raises(ValueError, match="rate must be positive"):
            open_loop(load(server), rate=0.0)
        with pytest.raises(ValueError, match="From 1 to 1024"):
            closed_loop(load(server), concurrency=0)
