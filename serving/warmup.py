"""Warms a model up before it takes requests: the first run of a graph is several times slower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from serving import server_wire
from serving.calls import UNBOUNDED, Rejected
from serving.inference import Runner
from serving.loader import LoadedModel, ModelError
from serving.records import read_records
from serving.steps import Steps
from serving.validation import InvalidRequest
from tfrec_feedback.requests import RequestError

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TF Serving looks for them, in the folder of a version."""
MAX_RECORDS = 1000
_INVALID_ARGUMENT, _INTERNAL = 3, 13


def warm_up(model: LoadedModel, path: Path, runner: Runner, steps: Steps = Steps()) -> int:
    """Runs the warm-up requests of a version, where it has any.

    Args:
        model: the version, loaded.
        path: its folder.
        runner: what runs its requests.
        steps: pauses between two of them.

    Returns:
        How many requests were run.

    Raises:
        ModelError: when a record is damaged or fails, or there are more than `MAX_RECORDS`.
    """
    file = path / WARMUP_FILE
    if not file.is_file():
        return 0
    count = 0
    try:
        for count, record in enumerate(read_records(file), start=1):
            if count > MAX_RECORDS:
                raise InvalidRequest(f"there are more than {MAX_RECORDS} records")
            log = server_wire.PredictionLog.FromString(record)
            _replay(model, log, runner)
            steps.pause()
    # What a model makes of a record is not to be foreseen: no exception may end a server.
    except Exception as error:
        raise ModelError(f"{file}: record {count}: {error}", _code(error)) from error
    return count


def _code(error: Exception) -> int:
    """Returns the number of the status code that a failed record stands for."""
    if isinstance(error, Rejected):
        return int(error.code.value[0])
    if isinstance(error, tf.errors.OpError):
        return int(error.error_code)
    refused = (InvalidRequest, RequestError, DecodeError, OSError)
    return _INVALID_ARGUMENT if isinstance(error, refused) else _INTERNAL


def _replay(model: LoadedModel, log: Any, runner: Runner) -> None:
    """Runs one record; whatever version it names, it is for this one."""
    if log.HasField("predict_log"):
        runner.predict(model, log.predict_log.request, UNBOUNDED)
    elif log.HasField("classify_log"):
        runner.classify(model, log.classify_log.request, UNBOUNDED)
    elif log.HasField("regress_log"):
        runner.regress(model, log.regress_log.request, UNBOUNDED)
    elif log.HasField("multi_inference_log"):
        runner.multi_inference(model, log.multi_inference_log.request, UNBOUNDED)
    else:
        raise InvalidRequest("expected a log of Predict, Classify, Regress or MultiInference")
