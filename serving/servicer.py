"""What the embedded server answers: TF Serving's prediction and model services."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError

from serving import server_wire, wire
from serving.calls import UNBOUNDED, Call, Rejected
from serving.errors import ServingError
from serving.inference import Runner, spec_of
from serving.loader import ModelError
from serving.manager import ModelManager
from serving.metrics import Metrics
from serving.model_config import ConfigError, from_proto
from serving.request_log import RequestLog
from serving.validation import InvalidRequest

_LOG = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OK = grpc.StatusCode.OK
_LONGEST_DETAILS = 1000  # bytes


class Servicer:
    """Answers the calls of both services for the models of a manager.

    Each method takes a message and the call, and returns a message, or raises `Rejected`,
    `InvalidRequest` or `tf.errors.OpError`; `handlers` turns those into gRPC statuses.

    Args:
        manager: finds the models.
        runner: runs requests on them.
        metrics: counts the calls.
        log: takes a sample of the answered requests.
    """

    def __init__(
        self,
        manager: ModelManager,
        runner: Runner,
        metrics: Metrics,
        log: RequestLog | None = None,
    ):
        self._manager = manager
        self._runner = runner
        self._metrics = metrics
        self._log = log
        self._reloading = threading.Lock()

    def predict(self, request: Any, call: Call) -> Any:
        """Runs one signature on the inputs of a `PredictRequest`."""
        with self._manager.lease(_spec(request)) as model:
            return self._runner.predict(model, request, call)

    def classify(self, request: Any, call: Call) -> Any:
        """Classifies the Examples of a `ClassificationRequest`."""
        with self._manager.lease(_spec(request)) as model:
            return self._runner.classify(model, request, call)

    def regress(self, request: Any, call: Call) -> Any:
        """Gives every Example of a `RegressionRequest` a value."""
        with self._manager.lease(_spec(request)) as model:
            return self._runner.regress(model, request, call)

    def multi_inference(self, request: Any, call: Call) -> Any:
        """Runs several signatures of one model on the same Examples."""
        if not request.tasks:
            raise InvalidRequest("Inference request must have at least one task.")
        names = {_spec(task).name for task in request.tasks}
        if len(names) > 1:
            raise InvalidRequest(
                f"All ModelSpecs in a MultiInferenceRequest must access the same model name, got "
                f"{sorted(names)}."
            )
        # One version answers all tasks, as in TF Serving: that of the first.
        with self._manager.lease(request.tasks[0].model_spec) as model:
            return self._runner.multi_inference(model, request, call)

    def get_model_metadata(self, request: Any, call: Call) -> Any:
        """Returns the signatures of a model."""
        with self._manager.lease(_spec(request)) as model:
            if list(request.metadata_field) != [wire.SIGNATURE_DEF]:
                raise InvalidRequest(
                    f"metadata_field must be [{wire.SIGNATURE_DEF!r}], got "
                    f"{list(request.metadata_field)}."
                )
            definitions = wire.SignatureDefMap(signature_def=model.signature_defs)
            response = wire.GetModelMetadataResponse(model_spec=spec_of(model))
        packed = response.metadata[wire.SIGNATURE_DEF]
        packed.type_url = wire.SIGNATURE_DEF_URL
        packed.value = definitions.SerializeToString()
        return response

    def get_model_status(self, request: Any, call: Call) -> Any:
        """Returns the states of a model's versions."""
        response = wire.GetModelStatusResponse()
        for found in self._manager.statuses(_spec(request)):
            status = response.model_version_status.add(version=found.version, state=found.state)
            # Set even when 0, so that the message is there: OK, not unknown.
            status.status.error_code = found.code
            status.status.error_message = found.message
        return response

    def reload_config(self, request: Any, call: Call) -> Any:
        """Replaces the list of models."""
        # A change waits while versions load; were several to, no thread were left for calls.
        if not self._reloading.acquire(blocking=False):
            raise Rejected(
                grpc.StatusCode.UNAVAILABLE,
                "The list of models stays as it was. Another call is changing it; try again.",
            )
        try:
            self._manager.reload(from_proto(request.config), call.seconds())
        except ConfigError as error:
            raise InvalidRequest(str(error)) from error
        except ModelError as error:
            code = _CODES.get(error.code, grpc.StatusCode.INTERNAL)
            raise Rejected(code, f"The list of models stays as it was. {error}") from error
        finally:
            self._reloading.release()
        response = server_wire.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    def answer(self, method: wire.Method, request: Any) -> Any:
        """Answers a caller in this process, who has no connection.

        Args:
            method: PREDICT or GET_MODEL_METADATA.
            request: its message.

        Returns:
            The response's message.

        Raises:
            ServingError: for every answer other than OK.
        """
        answers = {wire.PREDICT: self.predict, wire.GET_MODEL_METADATA: self.get_model_metadata}
        try:
            return answers[method](request, UNBOUNDED)
        except Exception as error:
            raise ServingError(*_status(method, error)) from error

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns the gRPC handlers of both services."""
        answers: dict[wire.Method, Callable[[Any, Call], Any]] = {
            wire.PREDICT: self.predict,
            server_wire.CLASSIFY: self.classify,
            server_wire.REGRESS: self.regress,
            server_wire.MULTI_INFERENCE: self.multi_inference,
            wire.GET_MODEL_METADATA: self.get_model_metadata,
            wire.GET_MODEL_STATUS: self.get_model_status,
            server_wire.RELOAD_CONFIG: self.reload_config,
        }
        services: dict[str, dict[str, Any]] = {}
        for method, answer in answers.items():
            # Requests are parsed by `_answer`: gRPC would log a page for each one that cannot be.
            services.setdefault(method.service, {})[method.name] = (
                grpc.unary_unary_rpc_method_handler(
                    self._handler(method, answer),
                    response_serializer=method.response.SerializeToString,
                )
            )
        return [grpc.method_handlers_generic_handler(name, m) for name, m in services.items()]

    def _handler(
        self, method: wire.Method, answer: Callable[[Any, Call], Any]
    ) -> Callable[[bytes, Any], Any]:
        """Wraps a method: bytes in, what it raises becomes a status, and every call is counted."""

        def handle(data: bytes, context: grpc.ServicerContext) -> Any:
            start = time.perf_counter()
            request: Any = None
            response: Any = None
            code, details = _OK, ""
            try:
                call = Call(context)
                call.check()  # it may have waited in the queue for longer than its caller did
                request = method.request.FromString(data)
                response = answer(request, call)
            except Exception as error:
                code, details = _status(method, error)
            self._count(method, request, response, code, time.perf_counter() - start)
            if code is not _OK:
                context.abort(code, _short(details))
            return response

        return handle

    def _count(
        self, method: wire.Method, request: Any, response: Any, code: Any, seconds: float
    ) -> None:
        if method.service != wire.PREDICTION_SERVICE or request is None:
            return
        holder = request
        if method is server_wire.MULTI_INFERENCE:
            holder = next(iter(request.tasks), None)
        # Names that callers make up are not counted: each would be a new series for ever.
        if holder is None or holder.model_spec.name not in self._manager.names():
            return
        name = holder.model_spec.name
        self._metrics.requests.add(name, code.name)
        self._metrics.latency.add(name, method.name, "GRPC", seconds=seconds)
        if self._log is not None and code is _OK:
            answered = response.results[0] if method is server_wire.MULTI_INFERENCE else response
            self._log.offer(method, request, answered.model_spec)


def _short(details: str) -> str:
    """Cuts an explanation that quotes too much: it travels in headers, whose size is limited."""
    # By bytes: gRPC writes each one that is not ASCII as three, and a character may have four.
    data = details.encode("utf-8", "replace")
    if len(data) <= _LONGEST_DETAILS:
        return details
    return f"{data[:_LONGEST_DETAILS].decode('utf-8', 'ignore')} ..."


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise InvalidRequest("Missing ModelSpec")
    return request.model_spec


def _status(method: wire.Method, error: Exception) -> tuple[grpc.StatusCode, str]:
    """Returns the status that an exception stands for."""
    if isinstance(error, tf.errors.OpError):
        return _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message
    if isinstance(error, Rejected):
        return error.code, str(error)
    if isinstance(error, InvalidRequest):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    if isinstance(error, DecodeError):
        return grpc.StatusCode.INTERNAL, f"The bytes are no {method.request.DESCRIPTOR.name}."
    _LOG.error("A request failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, "The server failed; see its log."
