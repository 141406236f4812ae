import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec_feedback.data.history import (
    KINDS,
    build_histories,
    feedback_kinds,
    lag_milliseconds,
)

EVENT = st.tuples(st.integers(0, 2), st.integers(0, 6), st.sampled_from(KINDS))
REQUEST = st.tuples(st.integers(0, 3), st.integers(0, 8))


def naive_history(events, kind, request, max_length, lag):
    user, time = request
    before = [
        (event[1], row)
        for row, event in enumerate(events)
        if event[0] == user and event[2] == kind and event[1] < time - lag
    ]
    return [row for _, row in sorted(before)][-max_length:]


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
    kinds = {kind: np.array([e[2] == kind for e in events], bool) for kind in KINDS}
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
    }


def test_a_lag_is_rounded_up_and_never_negative():
    assert lag_milliseconds(0.0001) == 1
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lag_seconds must be 0 or more"):
            lag_milliseconds(wrong)
