"""The requests that TensorFlow Serving runs while it loads a version, before anyone waits for it.

They stand in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`s. A
record that fails fails the load: a version that cannot answer never gets a caller. The messages are
put together from their field numbers (`tensorflow_serving/apis/{prediction_log,predict,model,
classification,regression,input}.proto`): the package that declares them is for tests alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.catalogue import EXCLUDED, NUM_EXCLUDED
from tfrec_feedback.data.protobuf import varint
from tfrec_feedback.golden import Request, batch, random_request, rows, to_record
from tfrec_feedback.models.recommender import ITEM
from tfrec_feedback.schema import InputSpec, Schema

WARMUP_FILE = "tf_serving_warmup_requests"
BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of candidates (or rows, or Examples) that every signature is called with."""
MOST_RECORDS = 1000
"""TensorFlow Serving refuses a version with more of them."""
_CLASSIFY_LOG, _REGRESS_LOG, _PREDICT_LOG = 2, 3, 6  # fields of PredictionLog


def warmup_requests(schema: Schema, signatures: Mapping[str, Any], model: str) -> list[bytes]:
    """Returns serialised `PredictionLog`s: one for every signature and bucket.

    `serving_default` is called once more for each of its outputs alone, as clients with an
    `output_filter` do: another set of outputs is another executor.

    Args:
        schema: the model's.
        signatures: concrete functions by name, as exported.
        model: name that the requests say.
    """
    rng = np.random.default_rng(0)
    longest = max((history.max_length for history in schema.histories), default=0)
    logs: list[bytes] = []
    for bucket in BUCKETS:
        request = random_request(schema, rng, bucket, longest)
        inputs = _inputs(schema, request)
        for name in signatures:
            if name in ("regress", "classify"):
                logs.append(_examples_log(model, name, _rows_as_records(schema, request)))
            elif name != "top_k" or bucket == 1:
                logs.append(_predict_log(model, name, inputs[name]))
    for output in signatures["serving_default"].structured_outputs:
        logs.append(_predict_log(model, "serving_default", inputs["serving_default"], [output]))
    return logs


def _inputs(schema: Schema, request: Request) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays of every signature that Predict calls, for one request."""
    arrays = batch(schema, [request])
    record = np.array([to_record(schema, request, None)], object)
    users = {s.name: arrays[s.name] for s in schema.inputs() if s.role != "candidate"}
    candidate = schema.candidate[0].name
    excluded = {EXCLUDED: arrays.get(ITEM, arrays[candidate])[:, :1]}
    return {
        "serving_default": arrays,
        "rank": arrays,
        "predict_rows": rows(schema, arrays),
        "rank_examples": {"examples": record},
        "top_k": {**users, **excluded, NUM_EXCLUDED: np.ones(1, np.int64)},
    }


def _rows_as_records(schema: Schema, request: Request) -> list[bytes]:
    """Returns one record for each candidate of a request."""

    def only(spec: InputSpec, row: int) -> np.ndarray:
        if spec.name == "num_candidates":
            return np.array(1)
        return request[spec.name][row : row + 1] if "N" in spec.axes else request[spec.name]

    return [
        to_record(schema, {spec.name: only(spec, row) for spec in schema.inputs()}, None)
        for row in range(int(request["num_candidates"]))
    ]


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of wire type 2: a message, text or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def _model_spec(model: str, signature: str) -> bytes:
    return _field(1, _field(1, model.encode()) + _field(3, signature.encode()))


def _predict_log(
    model: str, signature: str, arrays: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
) -> bytes:
    request = _model_spec(model, signature)
    for name, array in arrays.items():
        dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
        tensor = tf.make_tensor_proto(array, dtype, array.shape).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    request += b"".join(_field(3, output.encode()) for output in outputs)
    return _field(_PREDICT_LOG, _field(1, request))


def _examples_log(model: str, signature: str, records: Sequence[bytes]) -> bytes:
    examples = b"".join(_field(1, record) for record in records)
    request = _model_spec(model, signature) + _field(2, _field(1, examples))
    return _field(_REGRESS_LOG if signature == "regress" else _CLASSIFY_LOG, _field(1, request))
