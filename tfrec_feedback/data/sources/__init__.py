"""Adapters that turn a raw log into a canonical `Source`, or into `Interactions`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrec_feedback.data.columns import feature_columns
from tfrec_feedback.data.events import FILE, LINE, EventLogError, Source, clean_events
from tfrec_feedback.data.interactions import Interactions
from tfrec_feedback.data.manifest import Report
from tfrec_feedback.data.sources import adt_ratings, files, kuairand
from tfrec_feedback.schema import Identity, suggest

_READERS = {
    "kuairand-pure": kuairand.read_pure,
    "kuairand-27k-feedback": kuairand.read_feedback,
}
SOURCES = (*_READERS, "simulated", "events")
"""Names that `load_source` knows."""
INTERACTION_SOURCES = ("adt-ratings", "simulated-interactions")
"""Names that `load_interaction_source` knows."""


def load_source(
    name: str,
    path: str | Path | None = None,
    *,
    strict: bool = False,
    multi_valued: Iterable[str] | None = None,
    **simulation: Any,
) -> Source:
    """Reads a raw log.

    Args:
        name: one of `SOURCES`.
        path: the log; not for `simulated`.
        strict: stop at a malformed row instead of dropping it.
        multi_valued: multi-valued CSV columns of an `events` log, instead of those that hold `|`.
        **simulation: `num_users`, `num_items`, `num_days`, `seed` of a `simulated` log.

    Raises:
        EventLogError: for an unknown name, a missing path or one too many, and what the readers
            find.
    """
    _check_name(name, SOURCES, INTERACTION_SOURCES, "interactions: `load_interaction_source`")
    if name == "simulated":
        _check_nothing_to_read(name, path)
        return read_simulated(**simulation)
    if path is None:
        raise EventLogError(f"Source {name!r} needs `--input`, the file or folder of the log.")
    if name == "events":
        return files.read_events(path, strict=strict, multi_valued=multi_valued)
    return _READERS[name](path, strict=strict)


def load_interaction_source(
    name: str,
    path: str | Path | None = None,
    *,
    strict: bool = False,
    clean_rating: float | None = None,
    **simulation: Any,
) -> Interactions:
    """Reads or simulates interactions, for collaborative filtering.

    Args:
        name: one of `INTERACTION_SOURCES`.
        path: the folder of the data set; not for `simulated-interactions`.
        strict: stop at a malformed row instead of dropping it.
        clean_rating: lowest value of an interaction that is no false positive, see
            `tfrec_feedback.data.sources.adt_ratings.read_ratings`.
        **simulation: arguments of
            `tfrec_feedback.data.sources.simulated_interactions.simulate_interactions`.

    Raises:
        EventLogError: for an unknown name, a missing path or one too many, and what the readers
            find.
    """
    _check_name(name, INTERACTION_SOURCES, SOURCES, "a log of requests: `load_source`")
    if name == "simulated-interactions":
        _check_nothing_to_read(name, path)
        from tfrec_feedback.data.sources.simulated_interactions import simulate_interactions

        return simulate_interactions(**simulation)
    if path is None:
        raise EventLogError(f"Source {name!r} needs `--input`, the folder of the data set.")
    return adt_ratings.read_ratings(path, clean_rating=clean_rating, strict=strict)


def _check_name(name: str, known: tuple[str, ...], others: tuple[str, ...], kind: str) -> None:
    if name in others:
        raise EventLogError(f"Source {name!r} is read as {kind}.")
    if name not in known:
        near = suggest(name, (*known, *others))
        raise EventLogError(f"Unknown source {name!r}; expected one of {list(known)}.{near}")


def _check_nothing_to_read(name: str, path: str | Path | None) -> None:
    if path is not None:
        raise EventLogError(
            f"Source {name!r} is simulated and reads nothing, got the path {path}. Leave `--input` "
            "out, or name the source that reads it."
        )


def read_simulated(**simulation: Any) -> Source:
    """Simulates a log; its truth goes with it, row by row.

    Args:
        **simulation: arguments of `tfrec_feedback.data.sources.simulated.simulate`.
    """
    from tfrec_feedback.data.sources.simulated import simulate

    log = simulate(**simulation)
    report = Report(rows=len(log.events))
    frame = log.events.copy()
    frame[FILE], frame[LINE] = "simulated", np.arange(1, len(frame) + 1)
    # A simulated row that is not well-formed is a fault, never something to drop.
    events = clean_events(frame, report, strict=True).drop(columns=[FILE, LINE])
    for column in feature_columns(events):
        if events[column].dtype == object and isinstance(events[column].iloc[0], list):
            events[column] = _as_tuples(events[column])
    encodings = {"context_hour": Identity(24), "context_weekday": Identity(7)}
    return Source(
        "simulated",
        events.reset_index(drop=True),
        report,
        settings=dict(simulation),
        encodings={name: e for name, e in encodings.items() if name in events},
        truth=log.truth.reset_index(drop=True),
    )


def _as_tuples(column: pd.Series) -> pd.Series:
    return pd.Series([tuple(v) for v in column], index=column.index, dtype=object)
