"""Golden requests: what every export is asked, and what it must answer.

A golden request is a request record with its expected scores beside the inputs, as features
`golden/<task>` that no parser of requests looks at: the same bytes can be sent to a server. Names
of schema features hold no slash, so the two never meet.

`Request`s here are the tensors of one request without the request axis and without padding, by the
names of `schema.inputs()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfrec_feedback.data.protobuf import decode_example, encode_example
from tfrec_feedback.schema import (
    Buckets,
    Feature,
    Hashing,
    Identity,
    InputSpec,
    Schema,
    Vocabulary,
)

GOLDEN_FILE = "golden_requests.tfrecord"
SIZES = (1, 2, 3, 7, 20, 64, 128, 300)
"""Numbers of candidates of the requests that are made up."""
_PREFIX = "golden/"
_KEPT = 12  # real requests
_UNKNOWN = {"int64": 2**62 + 1, "string": b"never seen before", "float32": np.float32(1e30)}
_PADDING = {"int64": 0, "string": b"", "float32": np.float32(0)}
_DTYPES = {"int64": np.int64, "string": np.object_, "float32": np.float32}

Request = dict[str, np.ndarray]


def golden_requests(schema: Schema, records: Iterable[bytes] = (), seed: int = 0) -> list[Request]:
    """Returns requests that reach the corners of a model: the same ones for the same arguments.

    Args:
        schema: the model's.
        records: request records of a log; a few of different sizes are taken as they are.
        seed: of what is made up.

    Returns:
        Requests of 1 to 300 candidates; one without histories, one with histories longer than the
        model keeps, one whose every value is unknown.
    """
    rng = np.random.default_rng(seed)
    longest = max((history.max_length for history in schema.histories), default=0)
    requests = _spread([from_record(schema, record) for record in records])
    requests += [random_request(schema, rng, size, longest) for size in SIZES]
    requests.append(random_request(schema, rng, 4, longest, fewest=longest + 2))
    requests.append(random_request(schema, rng, 4, 0))
    unknown = random_request(schema, rng, 4, longest)
    for spec in schema.inputs():
        if spec.feature is not None:
            unknown[spec.name] = _full(spec, unknown[spec.name].shape, _UNKNOWN)
    return [*requests, unknown]


def _spread(requests: list[Request]) -> list[Request]:
    """Returns a few requests of sizes as different as there are."""
    ordered = sorted(requests, key=lambda request: int(request["num_candidates"]))
    if len(ordered) <= _KEPT:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, _KEPT).astype(int)]


def random_request(
    schema: Schema, rng: np.random.Generator, candidates: int, longest: int, fewest: int = 0
) -> Request:
    """Makes up a request of values that a schema knows.

    Args:
        schema: what it holds.
        rng: source of randomness.
        candidates: N.
        longest: most events of a history.
        fewest: least events of a history; above `longest`, their exact number.
    """
    lengths = {
        h.name: int(rng.integers(fewest, max(longest, fewest) + 1)) for h in schema.histories
    }
    sessions = {h.name: h.num_sessions for h in schema.histories}
    request: Request = {}
    for spec in schema.inputs():
        events = lengths.get(spec.sequence or "", 0)
        sizes = {"R": None, "N": candidates, "T": events}
        shape = [n for axis in spec.axes if (n := sizes.get(str(axis), axis)) is not None]
        if spec.feature is not None:
            request[spec.name] = _random_values(schema, spec.feature, rng, [int(n) for n in shape])
        elif spec.name == "num_candidates":
            request[spec.name] = np.array(candidates)
        elif spec.name.endswith("_count"):
            width = next(f.max_values for f in schema.features if _counts(spec, f))
            request[spec.name] = rng.integers(0, width + 1, [int(n) for n in shape])
        elif "T" in spec.axes:
            numbers = rng.integers(0, sessions[spec.sequence or ""] + 1, events)
            request[spec.name] = np.sort(numbers)[::-1] - numbers.min(initial=10**6) * (events > 0)
        else:
            request[spec.name] = np.array(events)
    return request


def _counts(spec: InputSpec, feature: Feature) -> bool:
    """Returns whether a tensor counts the values of a feature, in a history or outside."""
    prefix = f"{spec.sequence}_" if spec.sequence else ""
    return spec.name == f"{prefix}{feature.name}_count" and feature.max_values > 1


def _random_values(
    schema: Schema, feature: Feature, rng: np.random.Generator, shape: list[int]
) -> np.ndarray:
    encoding = feature.encoding
    if isinstance(encoding, Buckets):
        low, high = encoding.boundaries[0], encoding.boundaries[-1]
        span = max(1.0, high - low)
        return rng.uniform(low - span, high + span, shape).astype(np.float32)
    if isinstance(encoding, Identity):
        return rng.integers(0, encoding.size, shape)
    values: np.ndarray = np.empty(shape, object)
    if isinstance(encoding, Vocabulary):
        tokens = np.array(schema.vocabulary(feature.table), object)
        values[...] = tokens[rng.integers(0, len(tokens), shape)]
    elif isinstance(encoding, Hashing):
        values[...] = rng.integers(0, 10**9, shape)
    if feature.dtype == "int64":
        return values.astype(np.int64)
    text = [str(value).encode() for value in values.flat]
    values.flat[:] = text
    return values


def _full(spec: InputSpec, shape: Sequence[int], values: Mapping[str, object]) -> np.ndarray:
    return np.full(shape, values[spec.dtype], _DTYPES[spec.dtype])


def from_record(schema: Schema, record: bytes) -> Request:
    """Reads the inputs of a request record, without TensorFlow; other features are left out."""
    found = decode_example(record)
    request: Request = {}
    for spec in schema.inputs():
        shape = [-1 if axis in ("N", "T") else int(axis) for axis in spec.axes if axis != "R"]
        values: np.ndarray = np.empty(len(found[spec.name]), _DTYPES[spec.dtype])
        values[:] = found[spec.name]
        # numpy cannot tell how many rows no values make.
        shape = shape if values.size else [max(size, 0) for size in shape]
        request[spec.name] = values.reshape(shape)
    return request


def to_record(schema: Schema, request: Request, scores: Mapping[str, np.ndarray] | None) -> bytes:
    """Returns a request as its record, with the scores that are expected of it."""
    features: dict[str, tuple[str, Sequence[object]]] = {
        spec.name: (spec.dtype, np.ravel(request[spec.name]).tolist()) for spec in schema.inputs()
    }
    for task, values in (scores or {}).items():
        features[f"{_PREFIX}{task}"] = ("float32", values.tolist())
    return encode_example(features)


def expected_scores(record: bytes) -> dict[str, np.ndarray]:
    """Returns the scores that a golden record expects, `[N]` by task."""
    return {
        name.removeprefix(_PREFIX): np.array(values, np.float32)
        for name, values in decode_example(record).items()
        if name.startswith(_PREFIX)
    }


def batch(
    schema: Schema,
    requests: Sequence[Request],
    width: int = 1,
    extra: int = 0,
    first: bool = False,
) -> dict[str, np.ndarray]:
    """Pads requests to one batch, the tensors of `schema.inputs()`.

    Args:
        schema: what they hold.
        requests: R requests.
        width: least N, and least T.
        extra: columns of padding after the widest request and the longest history.
        first: pads with the first element of each tensor, as TensorFlow Serving does when it
            batches, rather than with zeros and empty text.
    """
    padded = {}
    for spec in schema.inputs():
        values = [request[spec.name] for request in requests]
        shape = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
        if {"N", "T"} & set(spec.axes):
            shape[0] = max(shape[0] + extra, width)
        array = _full(spec, [len(values), *shape], _PADDING)
        for row, value in enumerate(values):
            if first and value.size:
                array[row] = value.flat[0]
            # The dots: at a place without axes, numpy would keep the array of a text in the array.
            inside: tuple[Any, ...] = (row, *(slice(size) for size in value.shape), ...)
            array[inside] = value
        padded[spec.name] = array
    return padded


def rows(schema: Schema, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of `predict_rows`: each candidate of a batch with its user's part."""
    counts = arrays["num_candidates"]
    user = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_candidates = {spec.name for spec in schema.inputs() if "N" in spec.axes}
    return {
        spec.name: arrays[spec.name][user, place]
        if spec.name in of_candidates
        else arrays[spec.name][user]
        for spec in schema.row_inputs()
    }
