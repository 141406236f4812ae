"""Which rows of an event log are one request, and which split it belongs to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.manifest import SPLITS


@dataclasses.dataclass(frozen=True)
class RequestTable:
    """The requests of a log, numbered in time order.

    Attributes:
        rows: `[rows]` rows of the log sorted by request, in log order within one.
        offsets: `[R + 1]`; request r holds `rows[offsets[r]:offsets[r + 1]]`.
        user: `[R]` code of the user, `event_user` of its rows.
        timestamp: `[R]` milliseconds; the earliest of its rows.
        split: `[R]` index into `SPLITS`.
        request_id: `[R]` text.
        event_user: `[rows]` code of each row's user, in log order.
    """

    rows: np.ndarray
    offsets: np.ndarray
    user: np.ndarray
    timestamp: np.ndarray
    split: np.ndarray
    request_id: np.ndarray
    event_user: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def first_rows(self) -> np.ndarray:
        """`[R]` first row of each request, in log order."""
        return self.rows[self.offsets[:-1]]

    @property
    def num_candidates(self) -> np.ndarray:
        """`[R]` number of rows."""
        return np.diff(self.offsets)

    def requests_of(self, split: str) -> np.ndarray:
        """Returns the numbers of a split's requests, in time order."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def rows_of(self, split: str) -> np.ndarray:
        """Returns the log rows of a split, sorted by request."""
        return self.rows[np.repeat(self.split, self.num_candidates) == SPLITS.index(split)]


def group_requests(
    events: pd.DataFrame, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> RequestTable:
    """Groups a log into requests: rows of one user with one `request_id`, or one timestamp.

    Args:
        events: canonical log.
        fractions: shares of train, validation and test in time order, where the log has no
            `split` column. Requests of one timestamp are never parted.

    Raises:
        EventLogError: when the log is empty, a request has rows of several splits, or no request
            is left to train on.
    """
    if events.empty:
        raise EventLogError("The log has no usable rows: nothing to prepare.")
    event_user, _ = pd.factorize(events["user_id"])
    keys, _ = pd.factorize(events["request_id" if "request_id" in events else "timestamp"])
    group, _ = pd.factorize(event_user.astype(np.int64) * (keys.max() + 1) + keys)
    first = np.unique(group, return_index=True)[1]
    times = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(times, group, events["timestamp"].to_numpy())
    by_time = np.lexsort((first, times))
    number = np.empty_like(by_time)
    number[by_time] = np.arange(len(by_time))
    request = number[group]
    offsets = np.zeros(len(first) + 1, np.int64)
    np.cumsum(np.bincount(request), out=offsets[1:])
    first, times = first[by_time], times[by_time]
    return RequestTable(
        rows=np.argsort(request, kind="stable"),
        offsets=offsets,
        user=event_user[first],
        timestamp=times,
        split=_splits(events, request, first, times, fractions),
        request_id=_request_ids(events.iloc[first], times),
        event_user=event_user,
    )


def _request_ids(firsts: pd.DataFrame, times: np.ndarray) -> np.ndarray:
    if "request_id" in firsts:
        return firsts["request_id"].astype("str").to_numpy(object)
    users = firsts["user_id"].astype("str").tolist()
    return np.array([f"{u}:{t}" for u, t in zip(users, times.tolist(), strict=True)], object)


def _splits(
    events: pd.DataFrame,
    request: np.ndarray,
    first: np.ndarray,
    times: np.ndarray,
    fractions: tuple[float, float, float],
) -> np.ndarray:
    if "split" in events:
        row_split = pd.Index(SPLITS).get_indexer(pd.Index(events["split"]))
        split = row_split[first]
        torn = np.flatnonzero(split[request] != row_split)
        if len(torn):
            row = events.iloc[torn[0]]
            raise EventLogError(
                f"The request of user {row['user_id']!r} at {row['timestamp']} has rows of several "
                "splits. Give all rows of a request the same split."
            )
    else:
        split = split_by_time(times, fractions)
    if not (split == 0).any():
        raise EventLogError("No request falls into the train split: nothing to learn from.")
    return split.astype(np.int8)


def split_by_time(times: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    """Returns the split of requests sorted by time: 0 train, 1 validation, 2 test.

    Example:
        >>> split_by_time(np.array([1, 2, 3, 3, 5]), (0.4, 0.4, 0.2))
        array([0, 0, 1, 1, 2])
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise EventLogError(
            "Splits must be three shares (train, validation, test) that are not negative and sum "
            f"to 1, got {fractions}."
        )
    split = np.zeros(len(times), np.int64)
    for end in (fractions[0], fractions[0] + fractions[1]):
        position = int(end * len(times) + 1e-9)
        if position < len(times):
            split += times >= times[position]
    return split
