"""Small event logs for tests, and where the real ones are."""

import os
from pathlib import Path

import pandas as pd
import pytest

from tfrec_feedback.data.events import Source
from tfrec_feedback.data.manifest import Manifest, Report
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.sources import load_source

_ROOT = Path(__file__).parents[2]


def real_data(name: str) -> Path:
    """Returns a folder of real logs; skips where it is absent, except in CI, where it must be."""
    folder = _ROOT / os.environ.get("FEEDBACK_DATA", "../shared/data") / name
    if not folder.is_dir():
        message = f"no {name} logs: set FEEDBACK_DATA to the folder that holds them"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


def prepared_simulation(folder: Path, **options) -> Manifest:
    """Prepares a simulated log of some hundred requests into `folder`."""
    simulation = {"num_users": 60, "num_items": 80, "num_days": 6, "seed": 1}
    return prepare(load_source("simulated", **simulation), folder, **options)


def small_events() -> pd.DataFrame:
    """Two users. Ann asks at 10, 20 (two items) and 30; Bob at 20 and 40; times in ms."""
    rows = [
        # user, item, time, click, like, dislike, hour, country, tags, price
        ("ann", 1, 10, 1, 0, 0, 8, "se", ("a", "b"), 1.5),
        ("ann", 2, 20, 0, 0, 0, 9, "se", (), 2.5),
        ("ann", 3, 20, 1, 1, 0, 9, "se", ("b",), 3.5),
        ("bob", 1, 20, 0, 0, 1, 9, "", ("a", "b"), 1.5),
        ("ann", 4, 30, 0, 0, 0, 10, "se", ("c",), 4.5),
        ("bob", 3, 40, 1, 0, 0, 11, "", ("b",), 3.5),
    ]
    names = ["user_id", "item_id", "timestamp", "click", "like", "dislike"]
    features = ["context_hour", "user_country", "item_tags", "item_price"]
    return pd.DataFrame(rows, columns=[*names, *features])


def small_source(events: pd.DataFrame | None = None, **options) -> Source:
    """A source of `small_events` (or of the given ones)."""
    events = small_events() if events is None else events
    return Source("small", events, Report(rows=len(events)), **options)
