"""Synthetic requests of a typical schema: ten user fields, three item fields, three histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema

HISTORIES = ("click", "unclick", "dislike")
_ITEM_FIELDS = {"item_id": 10_000, "item_author_id": 2_000, "item_category": 30}
_USER_FIELDS = {"user_id": 20_000, **{f"user_field_{i}": 10 * (i + 1) for i in range(9)}}
# Means of a request's histories before the cut at T, as a simulated log has them.
_MEAN_LENGTHS = {"click": 20.0, "unclick": 40.0, "dislike": 0.3}


def synthetic_schema(max_length: int = 30) -> Schema:
    """Returns the schema.

    Args:
        max_length: T of every history.
    """
    return Schema(
        context=tuple(Feature(name, Identity(size)) for name, size in _USER_FIELDS.items()),
        candidate=tuple(Feature(name, Identity(size)) for name, size in _ITEM_FIELDS.items()),
        histories=tuple(
            FeedbackSequence(name, tuple(_ITEM_FIELDS), max_length) for name in HISTORIES
        ),
    )


def synthetic_request(
    rng: np.random.Generator, num_candidates: int, lengths: dict[str, int]
) -> dict[str, Any]:
    """Returns one request as a client writes it.

    Args:
        rng: randomness.
        num_candidates: N.
        lengths: events of each history.
    """
    return {
        "context": {name: int(rng.integers(size)) for name, size in _USER_FIELDS.items()},
        "histories": {name: _items(rng, length) for name, length in lengths.items()},
        "candidates": _items(rng, num_candidates),
    }


def random_lengths(rng: np.random.Generator, longest: int, full: bool) -> dict[str, int]:
    """Returns how long the histories of one request are.

    Args:
        rng: randomness.
        longest: T.
        full: whether all have T events; else exponential lengths, cut at T.
    """
    if full:
        return dict.fromkeys(HISTORIES, longest)
    drawn = {name: rng.exponential(mean) for name, mean in _MEAN_LENGTHS.items()}
    return {name: int(min(longest, round(length))) for name, length in drawn.items()}


def random_labels(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, tf.Tensor]:
    """Returns labels: 30 % clicks, 1 % dislikes, never both."""
    drawn = rng.random(shape)
    return {
        "ctr": tf.constant(drawn < 0.3, tf.float32),
        "dislike": tf.constant(drawn > 0.99, tf.float32),
    }


def _items(rng: np.random.Generator, count: int) -> dict[str, list[int]]:
    return {name: rng.integers(size, size=count).tolist() for name, size in _ITEM_FIELDS.items()}
