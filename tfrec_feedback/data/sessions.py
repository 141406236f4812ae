"""Sessions: a user's events of one kind, cut wherever he paused.

Session numbers differ from request to request, as they are counted back from the request's most
recent event. So each event gets one number that grows with time, once; a request's are differences.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from tfrec_feedback.data.history import EventSlices
from tfrec_feedback.schema import Schema


@dataclasses.dataclass(frozen=True)
class Sessions:
    """The sessions of one kind of history.

    Attributes:
        history: the events.
        session: `[events]` session of every event, growing with time for each user; users go on
            counting where others stopped.
        num_sessions: K, how many of the most recent sessions are told apart.
    """

    history: EventSlices
    session: np.ndarray
    num_sessions: int

    def numbers(self, requests: np.ndarray) -> np.ndarray:
        """Returns the session numbers of the histories of some requests, one after another.

        Session 0 is that of the request's most recent event; what is older than K - 1 is K.
        """
        requests = requests[self.history.length[requests] > 0]
        latest = self.session[self.history.end[requests] - 1]
        back = np.repeat(latest, self.history.length[requests])
        back -= self.session[self.history.positions(requests)]
        return np.minimum(back, self.num_sessions)


def gap_milliseconds(gap_minutes: float) -> int:
    """Returns in whole milliseconds what may pass inside a session.

    Raises:
        ValueError: for a gap that is not positive or not finite.
    """
    if not 0 < gap_minutes < math.inf:
        raise ValueError(
            f"session_gap_minutes must be above 0, got {gap_minutes}: a session ends where more "
            "time than this passes between two events."
        )
    return math.floor(gap_minutes * 60_000)


def cut_sessions(
    history: EventSlices, event_time: np.ndarray, gap_ms: int, num_sessions: int
) -> Sessions:
    """Cuts a user's events into sessions wherever more than `gap_ms` pass between two of them.

    All earlier events of the history's kind count, not only those a request keeps, so a session
    is the same for every request.

    Args:
        history: the events of one kind.
        event_time: `[rows of the log]` milliseconds.
        gap_ms: the longest pause inside a session.
        num_sessions: K, see `Sessions`.

    Returns:
        The sessions of all events, numbered back for any request.

    Example:
        >>> from tfrec_feedback.data.history import build_histories
        >>> user, time = np.zeros(4, int), np.array([10, 20, 50, 90])
        >>> clicks = {"click": np.ones(4, bool)}
        >>> asking = np.array([0]), np.array([100])
        >>> history = build_histories(user, time, clicks, *asking, max_lengths={"click": 9})
        >>> cut_sessions(history["click"], time, 30, num_sessions=5).numbers(np.array([0])).tolist()
        [1, 1, 1, 0]

    Reference: Feng et al., 2019 (DSIN), section 3.2, with pauses of 30 minutes.
    """
    times = event_time[history.events]
    # Where users change, a cut or none makes no difference: numbers are of one user's events.
    session = np.cumsum(np.diff(times, prepend=times[:1]) > gap_ms)
    return Sessions(history, session, num_sessions)


def schema_sessions(
    schema: Schema, sequences: Mapping[str, EventSlices], event_time: np.ndarray, gap_ms: int
) -> dict[str, Sessions]:
    """Returns the sessions of the histories that have any in the schema; see `cut_sessions`."""
    return {
        history.name: cut_sessions(
            sequences[history.name], event_time, gap_ms, history.num_sessions
        )
        for history in schema.histories
        if history.num_sessions
    }
