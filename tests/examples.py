"""A small schema with every kind of feature, and random requests of it."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.protobuf import encode_example
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import (
    Buckets,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    Schema,
    Vocabulary,
)

ITEMS = tuple(range(100, 120))
TAGS = ("art", "cooking", "music", "sport")
HISTORIES = ("click", "unclick", "like", "dislike")


def small_schema(max_length=5, num_samples=3, num_sessions=0):
    return Schema(
        context=(
            Feature("hour", Identity(24)),
            Feature("user_id", Hashing(50)),
            Feature("interests", Vocabulary(tokens=TAGS), table="tag", max_values=2),
        ),
        candidate=(
            Feature("item_id", Vocabulary(tokens=ITEMS, dtype="int64")),
            Feature("tag", Vocabulary(tokens=TAGS), max_values=3),
            Feature("duration", Buckets((10.0, 60.0))),
        ),
        histories=tuple(
            FeedbackSequence(n, ("item_id", "tag"), max_length, num_samples, num_sessions)
            for n in HISTORIES
        ),
    )


def random_request(rng, num_candidates=None, longest=7, sessions=False):
    """A request with unknown ids, empty histories and histories that are too long."""

    def items(count):
        tags = np.array([*TAGS, "unknown"])
        return {
            "item_id": rng.integers(95, 125, count).tolist(),
            "tag": [rng.choice(tags, rng.integers(0, 4)).tolist() for _ in range(count)],
        }

    def events(count):
        if not sessions:
            return items(count)
        pauses = rng.integers(0, 2, count)
        pauses[-1:] = 0  # the most recent event is of session 0
        return {**items(count), "session": np.cumsum(pauses[::-1])[::-1].tolist()}

    count = int(rng.integers(1, 6)) if num_candidates is None else num_candidates
    return {
        "context": {
            "hour": int(rng.integers(-1, 26)),
            "user_id": f"user {rng.integers(9)}",
            "interests": rng.choice(TAGS, rng.integers(0, 3)).tolist(),
        },
        "histories": {n: events(int(rng.integers(0, longest + 1))) for n in HISTORIES},
        "candidates": {**items(count), "duration": rng.uniform(0, 100, count).tolist()},
    }


def tensors(schema, requests):
    return {
        name: tf.constant(value, tf.string if value.dtype == object else None)
        for name, value in encode_requests(schema, requests).items()
    }


def request_record(schema, request, **more):
    """A request as its record: nothing is padded. `more` are further `(dtype, values)`."""
    batch = encode_requests(schema, [request])
    features = {}
    for spec in schema.inputs():
        values = batch[spec.name][0]
        if "N" in spec.axes:
            values = values[: batch["num_candidates"][0]]
        if "T" in spec.axes:
            values = values[: batch[schema.history(spec.sequence).length][0]]
        features[spec.name] = (spec.dtype, np.ravel(values).tolist())
    return encode_example({**features, **more})


def labelled_record(schema, request, labels, request_id="request", **more):
    """A record as training reads it; `labels` holds `[N]` flags by feedback, `more` is more."""
    count = len(request["candidates"]["item_id"])
    flags = {f"label_{flag}": ("int64", labels.get(flag, [0] * count)) for flag in schema.feedbacks}
    return request_record(
        schema,
        request,
        sample_weight=("float32", [1.0] * count),
        request_id=("string", [request_id]),
        user_key=("string", ["user"]),
        timestamp=("int64", [0]),
        **flags,
        **more,
    )


def has_sessions(schema):
    return any(history.num_sessions for history in schema.histories)


def random_batch(schema, num_requests=4, seed=0, **options):
    options = {"sessions": has_sessions(schema), **options}
    rng = np.random.default_rng(seed)
    return tensors(schema, [random_request(rng, **options) for _ in range(num_requests)])


def random_samples(schema, num_requests=4, seed=0):
    """The sample tensors of random requests, some of them empty; see `Schema.training_inputs`."""
    rng = np.random.default_rng(seed)
    requests = []
    longest = max((sample.max_length for sample in schema.samples), default=0)
    for _ in range(num_requests):
        drawn = random_request(rng, longest=longest)["histories"]
        histories = {
            s.name: {f: drawn[s.name.removesuffix("_sample")][f] for f in s.features}
            for s in schema.samples
        }
        nothing = {feature.name: [] for feature in schema.candidate}
        requests.append({"histories": histories, "candidates": nothing})
    twin = dataclasses.replace(schema, context=(), histories=schema.samples)
    names = {spec.name for spec in schema.training_inputs()} - {s.name for s in schema.inputs()}
    return {name: value for name, value in tensors(twin, requests).items() if name in names}


def random_labels(features, seed=0):
    rng = np.random.default_rng(seed)
    shape = features["item_id"].shape
    clicks = rng.integers(0, 2, shape)
    return {
        "ctr": tf.constant(clicks, tf.float32),
        "dislike": tf.constant((1 - clicks) * rng.integers(0, 2, shape), tf.float32),
    }
