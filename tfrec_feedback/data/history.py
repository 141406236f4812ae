"""Point-in-time feedback histories: what a user had done before a request, and nothing later.

A history is never copied out. The events of one kind are sorted by user and time once; the events
of a user before a moment are then consecutive, so a request's history is a pair (start, end).

Samples are drawn from the same events, but from all of a user's before the request and not only
the most recent: a triplet loss on long-term memories compares with what lies far back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

FEEDBACKS = ("click", "unclick", "like", "dislike")
"""Feedback histories that are built where nobody asks for others."""
KINDS = (*FEEDBACKS, "all")
"""Histories that can be built: one a feedback, and `all` exposures in one."""


@dataclasses.dataclass(frozen=True)
class EventSlices:
    """Events of every request: `events[start[r]:end[r]]` are those of request r.

    Attributes:
        events: rows of the log.
        start: `[R]` first event of each request, a position in `events`.
        end: `[R]` one past the last.
    """

    events: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """`[R]` number of events."""
        return self.end - self.start

    def positions(self, requests: np.ndarray) -> np.ndarray:
        """Returns where the events of some requests stand in `events`, request after request."""
        sizes = self.length[requests]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.repeat(self.start[requests], sizes) + within


@dataclasses.dataclass(frozen=True)
class HistorySlices(EventSlices):
    """One kind of feedback history of every request, oldest event first.

    Attributes:
        events: `[events]` rows of the log that are of this kind, sorted by user and time; requests
            of one user share them.
        first: `[R]` first event of this kind of each request's user, a position in `events`: what
            `start` would be if histories had no greatest length.
    """

    first: np.ndarray


def feedback_kinds(events: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns which exposures enter which history, one of `KINDS`.

    A disliked exposure is a dislike and nothing else; otherwise a click or a like is a click, a
    like is (also) a like, and an exposure without any feedback is an unclick. `all` holds every
    exposure once.
    """
    click, like, dislike = (events[flag].to_numpy() == 1 for flag in ("click", "like", "dislike"))
    return {
        "click": (click | like) & ~dislike,
        "unclick": ~(click | like | dislike),
        "like": like & ~dislike,
        "dislike": dislike,
        "all": np.ones(len(events), bool),
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
        first, end = np.empty(len(requests), np.int64), np.empty(len(requests), np.int64)
        first[requests] = before[user_start[requests_at]]
        end[requests] = before[requests_at]
        start = np.maximum(first, end - max_length)
        slices[kind] = HistorySlices(order[of_kind], start, end, first)
    return slices


def draw_samples(
    history: HistorySlices,
    num_samples: int,
    requests: np.ndarray,
    generator: np.random.Generator,
) -> EventSlices:
    """Draws from all a user had done before a request, however long ago.

    Every request gets `num_samples` events of the history's kind, or all there are when they are
    fewer: uniformly, without replacement, in random order. They are point-in-time like the
    history, and may be part of it.

    Args:
        history: the histories of all requests, of any `max_length`.
        num_samples: K.
        requests: `[R]` bool: who gets samples; the others get none.
        generator: source of randomness.

    Returns:
        The samples of every request, those of one after those of another.

    Example:
        >>> user, time = np.zeros(3, int), np.array([10, 20, 30])
        >>> clicks = {"click": np.ones(3, bool)}
        >>> history = build_histories(user, time, clicks, user, time, max_lengths={"click": 1})
        >>> drawn = draw_samples(history["click"], 4, time > 10, np.random.default_rng(0))
        >>> drawn.length.tolist(), drawn.events[:1].tolist(), sorted(drawn.events[1:].tolist())
        ([0, 1, 2], [0], [0, 1])
    """
    size = np.where(requests, history.end - history.first, 0)
    length = np.minimum(size, num_samples)
    asking = np.flatnonzero(length)
    chosen = _choose(size[asking], num_samples, generator) + history.first[asking, np.newaxis]
    end = np.cumsum(length)
    kept = np.arange(num_samples) < length[asking, np.newaxis]
    return EventSlices(history.events[chosen[kept]], end - length, end)


def _choose(sizes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Chooses `min(size, count)` different numbers below each size; what follows is arbitrary.

    Floyd's algorithm, for all rows at once (Bentley and Floyd 1987, "A sample of brilliance"):
    with `top` running up to size - 1, a number up to `top` is drawn, and `top` taken in its place
    when it was chosen before. Every set is then equally likely; a shuffle orders it.
    """
    length = np.minimum(sizes, count)
    chosen = np.full((len(sizes), count), -1, np.int64)
    for step in range(count):
        top = sizes - length + step
        drawn = generator.integers(0, top + 1)
        repeated = (chosen[:, :step] == drawn[:, np.newaxis]).any(axis=1)
        chosen[:, step] = np.where(repeated, top, drawn)
    keys = generator.random(chosen.shape)
    keys[np.arange(count) >= length[:, np.newaxis]] = 2.0  # behind all others
    return np.take_along_axis(chosen, np.argsort(keys, axis=1), axis=1)
