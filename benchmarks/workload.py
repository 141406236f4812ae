"""Synthetic requests of a typical schema: ten user fields, three item fields, three histories."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema

HISTORIES = ("click", "unclick", "dislike")
_ITEM_FIELDS = {"item_id": 10_000, "item_author_id": 2_000, "item_category": 30}
_USER_FIELDS = {"user_id": 20_000, **{f"user_field_{i}": 10 * (i + 1) for i in range(9)}}
# Means of a request's histories before the cut at T, as a simulated log has them.
_MEAN_LENGTHS = {"click": 20.0, "unclick": 40.0, "dislike": 0.3}

# Means of a request's histories in KuaiRand-Pure: most users have seen little.
KUAIRAND_LENGTHS = {"click": 2.5, "unclick": 3.3, "like": 0.11, "dislike": 0.005}
NUM_SAMPLES = 4


def synthetic_schema(
    max_length: int = 30, histories: Sequence[str] = HISTORIES, num_samples: int = 0
) -> Schema:
    """Returns the schema.

    Args:
        max_length: T of every history.
        histories: the feedbacks.
        num_samples: items drawn from every feedback's whole log, for triplet losses.
    """
    return Schema(
        context=tuple(Feature(name, Identity(size)) for name, size in _USER_FIELDS.items()),
        candidate=tuple(Feature(name, Identity(size)) for name, size in _ITEM_FIELDS.items()),
        histories=tuple(
            FeedbackSequence(name, tuple(_ITEM_FIELDS), max_length, num_samples)
            for name in histories
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


def random_lengths(
    rng: np.random.Generator,
    longest: int,
    full: bool,
    means: Mapping[str, float] = _MEAN_LENGTHS,
) -> dict[str, int]:
    """Returns how long the histories of one request are.

    Args:
        rng: randomness.
        longest: T.
        full: whether all have T events; else exponential lengths, cut at T.
        means: of the lengths before the cut, by history.
    """
    if full:
        return dict.fromkeys(means, longest)
    drawn = {name: rng.exponential(mean) for name, mean in means.items()}
    return {name: int(min(longest, round(length))) for name, length in drawn.items()}


def random_labels(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, tf.Tensor]:
    """Returns labels: 30 % clicks, 1 % dislikes, never both."""
    drawn = rng.random(shape)
    return {
        "ctr": tf.constant(drawn < 0.3, tf.float32),
        "dislike": tf.constant(drawn > 0.99, tf.float32),
    }


def training_batch(schema: Schema, requests: int, num_candidates: int, full: bool) -> Any:
    """Returns `(encoded features, labels)` of random requests with samples.

    Args:
        schema: with samples.
        requests: R.
        num_candidates: N.
        full: whether histories have all T events; else lengths as in KuaiRand-Pure.
    """
    rng = np.random.default_rng(0)
    features = request_tensors(rng, schema, requests, num_candidates, full)
    encoder = build_model("dfn_no_feedback", schema, embedding_dim=1).encode
    return encoder(features), random_labels(rng, (requests, num_candidates))


def request_tensors(
    rng: np.random.Generator, schema: Schema, requests: int, num_candidates: int, full: bool
) -> dict[str, tf.Tensor]:
    """Returns the tensors of `schema.training_inputs()` for random requests.

    Args:
        rng: randomness.
        schema: with samples.
        requests: R.
        num_candidates: N.
        full: as in `training_batch`.
    """
    plain = [dataclasses.replace(history, num_samples=0) for history in schema.histories]
    with_samples = dataclasses.replace(schema, histories=(*plain, *schema.samples))
    longest = schema.histories[0].max_length
    drawn = []
    for _ in range(requests):
        lengths = random_lengths(rng, longest, full, KUAIRAND_LENGTHS)
        # Items are drawn from the whole log of a user: without a history there are none.
        sampled = {f"{name}_sample": min(length, NUM_SAMPLES) for name, length in lengths.items()}
        drawn.append(synthetic_request(rng, num_candidates, {**lengths, **sampled}))
    return {name: tf.constant(x) for name, x in encode_requests(with_samples, drawn).items()}


def user_a_candidate(features: dict[str, tf.Tensor], schema: Schema) -> dict[str, tf.Tensor]:
    """Returns one request of N candidates as N requests of one, the user repeated.

    Args:
        features: of one request.
        schema: of single-valued features.
    """
    candidate = {feature.name for feature in schema.candidate}
    count = features[schema.candidate[0].name].shape[1]
    repeated = {
        name: tf.transpose(x) if name in candidate else tf.repeat(x, count, axis=0)
        for name, x in features.items()
    }
    return {**repeated, "num_candidates": tf.ones([count], tf.int64)}


def any_size(tensors: Any) -> Any:
    """Signature of batches of any R, N and T, so that a model is traced once."""

    def loose(path: str, x: tf.Tensor) -> tf.TensorSpec:
        if x.shape.rank == 3:
            return tf.TensorSpec([None, None, x.shape[2]], x.dtype)
        width = [x.shape[1]] if path.startswith("context_") else [None]
        return tf.TensorSpec([None, *width][: x.shape.rank], x.dtype)

    if isinstance(tensors, tuple):
        return tuple(any_size(part) for part in tensors)
    return {name: loose(name, x) for name, x in tensors.items()}


def _items(rng: np.random.Generator, count: int) -> dict[str, list[int]]:
    return {name: rng.integers(size, size=count).tolist() for name, size in _ITEM_FIELDS.items()}
