import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec_feedback.data.history import (
    FEEDBACKS,
    KINDS,
    HistorySlices,
    build_histories,
    draw_samples,
    feedback_kinds,
    lag_milliseconds,
)

EVENT = st.tuples(st.integers(0, 2), st.integers(0, 6), st.sampled_from(FEEDBACKS))
REQUEST = st.tuples(st.integers(0, 3), st.integers(0, 8))


def naive_history(events, kind, request, max_length, lag):
    user, time = request
    before = [
        (event[1], row)
        for row, event in enumerate(events)
        if event[0] == user and kind in (event[2], "all") and event[1] < time - lag
    ]
    return [row for _, row in sorted(before)][-max_length:]


def kind_masks(events):
    kinds = {kind: np.array([e[2] == kind for e in events], bool) for kind in FEEDBACKS}
    return {**kinds, "all": np.ones(len(events), bool)}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(EVENT, max_size=25),
    st.lists(REQUEST, min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_histories_are_those_of_a_plain_loop(events, requests, max_length, lag):
    users = np.array([e[0] for e in events], np.int64)
    times = np.array([e[1] for e in events], np.int64)
    kinds = kind_masks(events)
    asking, when = np.array(requests, np.int64).T
    slices = build_histories(
        users, times, kinds, asking, when, max_lengths=dict.fromkeys(KINDS, max_length), lag_ms=lag
    )
    for kind in KINDS:
        for r, request in enumerate(requests):
            got = slices[kind].events[slices[kind].start[r] : slices[kind].end[r]].tolist()
            assert got == naive_history(events, kind, request, max_length, lag)


def test_events_of_the_request_s_own_moment_are_not_history():
    user, time = np.array([0, 0]), np.array([10, 10])
    slices = build_histories(
        user, time, {"click": np.array([True, True])}, user, time, max_lengths={"click": 5}
    )
    assert slices["click"].length.tolist() == [0, 0]


def test_a_lag_hides_the_latest_events():
    user, time = np.zeros(3, np.int64), np.array([0, 1000, 2000])
    clicks = {"click": np.ones(3, bool)}
    ends = {}
    for lag in (0, 999, 1000):
        slices = build_histories(
            user, time, clicks, user, time, max_lengths={"click": 5}, lag_ms=lag
        )
        ends[lag] = slices["click"].length.tolist()
    assert ends == {0: [0, 1, 2], 999: [0, 1, 2], 1000: [0, 0, 1]}


def test_kinds_follow_the_precedence_of_feedback():
    flags = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 0, 1)]
    kinds = feedback_kinds(pd.DataFrame(flags, columns=["click", "like", "dislike"]))
    assert {kind: mask.astype(int).tolist() for kind, mask in kinds.items()} == {
        "click": [0, 1, 1, 1, 0, 0],
        "unclick": [1, 0, 0, 0, 0, 0],
        "like": [0, 0, 1, 1, 0, 0],
        "dislike": [0, 0, 0, 0, 1, 1],
        "all": [1, 1, 1, 1, 1, 1],
    }
    assert tuple(kinds) == KINDS


def test_a_lag_is_rounded_up_and_never_negative():
    assert lag_milliseconds(0.0001) == 1
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lag_seconds must be 0 or more"):
            lag_milliseconds(wrong)


# --- samples -------------------------------------------------------------------------------------


def pools(*sizes):
    """Histories of one event, of requests whose users had so many events before."""
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    end = np.cumsum(sizes)
    return HistorySlices(np.arange(sum(sizes)), np.maximum(first, end - 1), end, first)


def drawn(history, num_samples, requests=None, seed=0):
    requests = np.ones(len(history.end), bool) if requests is None else np.array(requests)
    samples = draw_samples(history, num_samples, requests, np.random.default_rng(seed))
    pairs = zip(samples.start.tolist(), samples.end.tolist(), strict=True)
    return [samples.events[start:end].tolist() for start, end in pairs]


def test_a_user_with_fewer_events_than_samples_gets_them_all():
    # User 0 did something at 10 and 20, user 1 at 15; all is asked at 30.
    user, time = np.array([0, 1, 0]), np.array([10, 15, 20])
    history = build_histories(
        user,
        time,
        {"click": np.ones(3, bool)},
        np.array([0, 1, 2]),
        np.array([30, 30, 30]),
        max_lengths={"click": 1},
    )["click"]
    zero, one, nobody = drawn(history, 4)
    assert sorted(zero) == [0, 2]
    assert (one, nobody) == ([1], [])


@pytest.mark.parametrize(("lag", "known"), [(0, [0, 1]), (9, [0, 1]), (10, [0]), (20, [])])
def test_samples_are_strictly_before_the_request_and_its_lag(lag, known):
    user, time = np.zeros(4, np.int64), np.array([10, 20, 30, 40])
    clicks = {"click": np.ones(4, bool)}
    asking = np.array([0]), np.array([30])
    history = build_histories(user, time, clicks, *asking, max_lengths={"click": 9}, lag_ms=lag)
    assert sorted(drawn(history["click"], 9)[0]) == known


def test_samples_reach_beyond_the_history():
    # Histories hold the last of 50 events; 20 different ones of the 50 are drawn.
    (samples,) = drawn(pools(50), 20)
    assert len(set(samples)) == 20
    assert min(samples) < 40


def test_requests_that_do_not_ask_get_no_samples():
    assert drawn(pools(2, 3, 0, 1), 1, [False, False, True, True]) == [[], [], [], [5]]
    assert drawn(pools(2, 3), 2, [False, False]) == [[], []]


def test_the_seed_decides_the_samples():
    history = pools(*[30] * 20)
    assert drawn(history, 5, seed=1) == drawn(history, 5, seed=1)
    assert drawn(history, 5, seed=1) != drawn(history, 5, seed=2)


@pytest.mark.parametrize(("size", "num_samples"), [(5, 3), (3, 3), (3, 4)])
def test_every_ordered_draw_is_equally_likely(size, num_samples):
    history = pools(*[size] * 12_000)
    offsets = history.first[:, np.newaxis]
    count = min(size, num_samples)
    draws = np.array(drawn(history, num_samples)).reshape(-1, count) - offsets
    _, counts = np.unique(draws, axis=0, return_counts=True)
    ways = math.perm(size, count)  # 60, or 6
    assert len(counts) == ways
    expected = 12_000 / ways
    # Five standard deviations of a binomial count.
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(EVENT, max_size=40),
    st.lists(REQUEST, min_size=1, max_size=8),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from(KINDS),
)
def test_samples_are_distinct_earlier_events_of_the_user_and_kind(
    events, requests, num_samples, lag, kind
):
    asking, when = np.array(requests, np.int64).T
    history = build_histories(
        np.array([e[0] for e in events], np.int64),
        np.array([e[1] for e in events], np.int64),
        kind_masks(events),
        asking,
        when,
        max_lengths={kind: 2},
        lag_ms=lag,
    )[kind]
    for request, samples in zip(requests, drawn(history, num_samples), strict=True):
        pool = naive_history(events, kind, request, len(events) + 1, lag)
        assert len(samples) == len(set(samples)) == min(len(pool), num_samples)
        assert set(samples) <= set(pool)
