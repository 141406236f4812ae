"""Point-in-time feedback histories: what a user had done before a request, and nothing later.

A history is never copied out. The events of one kind are sorted by user and time once; the events
of a user before a moment are then consecutive, so a request's history is a pair (start, end).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

KINDS = ("click", "unclick", "like", "dislike")
"""Feedback histories that can be built."""


@dataclasses.dataclass(frozen=True)
class HistorySlices:
    """One kind of feedback history of every request.

    Attributes:
        events: `[events]` rows of the log that are of this kind, sorted by user and time.
        start: `[R]` first event of each request's history, a position in `events`.
        end: `[R]` one past the last, the most recent.
    """

    events: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """`[R]` number of events."""
        return self.end - self.start


def feedback_kinds(events: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns which exposures enter which history.

    A disliked exposure is a dislike and nothing else; otherwise a click or a like is a click, a
    like is (also) a like, and an exposure without any feedback is an unclick.
    """
    click, like, dislike = (events[flag].to_numpy() == 1 for flag in ("click", "like", "dislike"))
    return {
        "click": (click | like) & ~dislike,
        "unclick": ~(click | like | dislike),
        "like": like & ~dislike,
        "dislike": dislike,
    }


def lag_milliseconds(lag_seconds: float) -> int:
    """Returns a lag in whole milliseconds, rounded up.

    Raises:
        ValueError: for a lag that is negative or not finite.
    """
    if not 0 <= lag_seconds < math.inf:
        raise ValueError(
            f"lag_seconds must be 0 or more, got {lag_seconds}: a negative lag would let histories "
            "see what happened after the request."
        )
    return math.ceil(lag_seconds * 1000)


def build_histories(
    event_user: np.ndarray,
    event_time: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    request_user: np.ndarray,
    request_time: np.ndarray,
    *,
    max_lengths: Mapping[str, int],
    lag_ms: int = 0,
) -> dict[str, HistorySlices]:
    """Builds the histories of all requests with one sort.

    The history of a request holds its user's events strictly before `request_time - lag_ms`, the
    most recent `max_lengths[kind]` of them, oldest first; events of one time keep their log order.

    Args:
        event_user: `[events]` user code of every event.
        event_time: `[events]` milliseconds.
        kinds: `[events]` bool by kind: which events enter that history.
        request_user: `[R]` user codes.
        request_time: `[R]` milliseconds.
        max_lengths: T by kind; the kinds to build.
        lag_ms: how long an event takes to become known.

    Example:
        >>> user, time = np.array([0, 0, 0]), np.array([10, 20, 30])
        >>> clicks = {"click": np.array([True, True, True])}
        >>> slices = build_histories(user, time, clicks, user, time, max_lengths={"click": 1})
        >>> slices["click"].start.tolist(), slices["click"].end.tolist()
        ([0, 0, 1], [0, 1, 2])
    """
    num_events = len(event_user)
    user = np.concatenate([event_user, request_user])
    time = np.concatenate([event_time, request_time - lag_ms])
    is_event = np.arange(len(user)) < num_events
    # At equal times requests sort first, so that an event of that moment is not before them.
    order = np.lexsort((is_event, time, user))
    new_user = np.diff(user[order], prepend=user[order[:1]] - 1) != 0
    user_start = np.flatnonzero(new_user)[np.cumsum(new_user) - 1]
    requests_at = np.flatnonzero(order >= num_events)
    requests = order[requests_at] - num_events
    slices = {}
    for kind, max_length in max_lengths.items():
        of_kind = np.zeros(len(user), bool)
        of_kind[:num_events] = kinds[kind]
        of_kind = of_kind[order]
        before = np.cumsum(of_kind) - of_kind  # events of this kind sorted before each position
        start, end = np.empty(len(requests), np.int64), np.empty(len(requests), np.int64)
        end[requests] = before[requests_at]
        start[requests] = np.maximum(
            before[user_start[requests_at]], before[requests_at] - max_length
        )
        slices[kind] = HistorySlices(order[of_kind], start, end)
    return slices
