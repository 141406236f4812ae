import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_history import EVENT, REQUEST, kind_masks, naive_history
from tfrec_feedback.data.history import KINDS, build_histories
from tfrec_feedback.data.sessions import cut_sessions, gap_milliseconds, schema_sessions
from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema

MINUTE = 60_000


def numbers(user, time, asking, when, *, gap_ms, num_sessions=5, max_length=9, lag_ms=0):
    """Session numbers of every request's clicks; all events are clicks."""
    user, time = np.array(user), np.array(time)
    clicks = {"click": np.ones(len(user), bool)}
    history = build_histories(
        user,
        time,
        clicks,
        np.array(asking),
        np.array(when),
        max_lengths={"click": max_length},
        lag_ms=lag_ms,
    )["click"]
    sessions = cut_sessions(history, time, gap_ms, num_sessions)
    return [sessions.numbers(np.array([r])).tolist() for r in range(len(asking))]


# Pauses of 20, 31, 30 and 40 minutes: the second and the last are longer than 30.
TIMES = [minute * MINUTE for minute in (0, 20, 51, 81, 121)]


def test_a_session_ends_where_more_than_the_gap_passes():
    found = numbers([0] * 5, TIMES, [0], [200 * MINUTE], gap_ms=30 * MINUTE)
    assert found == [[2, 2, 1, 1, 0]]


def test_sessions_are_counted_back_from_the_most_recent_event_of_each_request():
    when = [0, 1, 52 * MINUTE, 121 * MINUTE, 122 * MINUTE]
    found = numbers([0] * 5, TIMES, [0] * 5, when, gap_ms=30 * MINUTE)
    # Nothing; one event; three in two sessions; the last event is not known at its own time.
    assert found == [[], [0], [1, 1, 0], [1, 1, 0, 0], [2, 2, 1, 1, 0]]


def test_sessions_older_than_those_told_apart_share_one_number():
    user, time = [0] * 6, [0, 10, 20, 30, 31, 40]
    assert numbers(user, time, [0], [99], gap_ms=5, num_sessions=2) == [[2, 2, 2, 1, 1, 0]]
    assert numbers(user, time, [0], [99], gap_ms=5, num_sessions=1) == [[1, 1, 1, 1, 1, 0]]


def test_the_most_recent_events_that_are_kept_are_those_that_are_numbered():
    assert numbers([0] * 4, [0, 10, 20, 30], [0], [99], gap_ms=5, max_length=2) == [[1, 0]]


def test_users_do_not_share_sessions():
    # User 1's first event follows user 0's last by 1 ms, and by a long pause for user 2's.
    user, time = [0, 0, 1, 1, 2], [0, 100, 101, 102, 500]
    found = numbers(user, time, [0, 1, 2], [999] * 3, gap_ms=5)
    assert found == [[1, 0], [0, 0], [0]]


def test_requests_of_any_order_and_number_are_answered_together():
    user, time = np.array([0, 0, 1]), np.array([0, 100, 0])
    asking, when = np.array([0, 1, 2, 0]), np.array([200, 200, 200, 50])
    history = build_histories(
        user, time, {"click": np.ones(3, bool)}, asking, when, max_lengths={"click": 9}
    )["click"]
    sessions = cut_sessions(history, time, 5, 3)
    # Request 2 asks for a user who did nothing; request 3 knows one event.
    assert sessions.numbers(np.array([3, 2, 1, 0])).tolist() == [0, 0, 1, 0]
    assert sessions.numbers(np.array([2])).tolist() == []


def test_a_log_without_events_of_a_kind_has_no_sessions():
    nothing = np.zeros(0, np.int64)
    assert numbers(nothing, nothing, [0], [9], gap_ms=5) == [[]]


def naive_numbers(events, kind, request, max_length, lag, gap, num_sessions):
    rows = naive_history(events, kind, request, len(events) + 1, lag)
    found, back = [], 0
    for i in reversed(range(len(rows))):
        if i + 1 < len(rows) and events[rows[i + 1]][1] - events[rows[i]][1] > gap:
            back += 1
        found.append(min(back, num_sessions))
    return found[::-1][-max_length:]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(EVENT, max_size=30),
    st.lists(REQUEST, min_size=1, max_size=8),
    st.integers(1, 5),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(1, 4),
    st.sampled_from(KINDS),
)
def test_sessions_are_those_of_a_plain_loop(
    events, requests, max_length, lag, gap, num_sessions, kind
):
    times = np.array([e[1] for e in events], np.int64)
    asking, when = np.array(requests, np.int64).T
    history = build_histories(
        np.array([e[0] for e in events], np.int64),
        times,
        kind_masks(events),
        asking,
        when,
        max_lengths={kind: max_length},
        lag_ms=lag,
    )[kind]
    found = cut_sessions(history, times, gap, num_sessions).numbers(np.arange(len(requests)))
    expected = [
        naive_numbers(events, kind, request, max_length, lag, gap, num_sessions)
        for request in requests
    ]
    assert found.tolist() == sum(expected, [])


def test_a_gap_is_whole_milliseconds_and_positive():
    assert gap_milliseconds(30.0) == 1_800_000
    assert gap_milliseconds(1e-4) == 6
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="session_gap_minutes must be above 0"):
            gap_milliseconds(wrong)


def test_only_histories_with_sessions_get_them():
    schema = Schema(
        (),
        (Feature("item", Identity(3)),),
        (FeedbackSequence("click", ("item",), num_sessions=2), FeedbackSequence("like", ("item",))),
    )
    user, time = np.zeros(2, np.int64), np.array([0, 9])
    kinds = {name: np.ones(2, bool) for name in ("click", "like")}
    histories = build_histories(user, time, kinds, user, time, max_lengths=dict.fromkeys(kinds, 5))
    sessions = schema_sessions(schema, histories, time, 5)
    assert list(sessions) == ["click"]
    assert sessions["click"].num_sessions == 2
