"""What the embedded server answers: TF Serving's prediction and model services for one model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf

from serving import wire
from serving.loader import LoadedModel
from serving.signatures import DEFAULT_SIGNATURE
from serving.tensors import to_proto
from serving.validation import InvalidRequest, check_output_filter, decode_inputs

_LOG = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Rejected(Exception):
    """An answer other than OK.

    Attributes:
        code: the gRPC status code.
    """

    def __init__(self, code: grpc.StatusCode, details: str):
        super().__init__(details)
        self.code = code


class Servicer:
    """Answers Predict, GetModelMetadata and GetModelStatus for one loaded model.

    Each method takes a message of `serving.wire` and returns one, or raises `Rejected`,
    `InvalidRequest` or `tf.errors.OpError`; `handlers` turns those into gRPC statuses.

    Args:
        model: what is served.
    """

    def __init__(self, model: LoadedModel):
        self._model = model

    def predict(self, request: Any) -> Any:
        """Runs one signature on the inputs of a `PredictRequest`."""
        self._check_spec(request)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self._model.signatures.get(name)
        if signature is None:
            raise Rejected(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Serving signature key {name!r} not found; the model has "
                f"{sorted(self._model.signatures)}.",
            )
        wanted = check_output_filter(signature, request.output_filter)
        scores = self._model.run(name, decode_inputs(signature, request.inputs))
        response = wire.PredictResponse(model_spec=self._spec(name))
        for output in wanted:
            response.outputs[output].CopyFrom(to_proto(scores[output]))
        return response

    def get_model_metadata(self, request: Any) -> Any:
        """Returns the signatures of the model."""
        self._check_spec(request)
        if list(request.metadata_field) != [wire.SIGNATURE_DEF]:
            raise InvalidRequest(
                f"metadata_field must be [{wire.SIGNATURE_DEF!r}], got "
                f"{list(request.metadata_field)}."
            )
        definitions = wire.SignatureDefMap(signature_def=self._model.signature_defs)
        response = wire.GetModelMetadataResponse(model_spec=self._spec())
        packed = response.metadata[wire.SIGNATURE_DEF]
        packed.type_url = wire.SIGNATURE_DEF_URL
        packed.value = definitions.SerializeToString()
        return response

    def get_model_status(self, request: Any) -> Any:
        """Returns the state of the model's version."""
        self._check_spec(request)
        response = wire.GetModelStatusResponse()
        status = response.model_version_status.add(
            version=self._model.version, state=wire.AVAILABLE
        )
        status.status.error_code = 0  # set, so that the message is there: OK, not unknown
        return response

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns the gRPC handlers of both services."""
        answers = {
            wire.PREDICT: self.predict,
            wire.GET_MODEL_METADATA: self.get_model_metadata,
            wire.GET_MODEL_STATUS: self.get_model_status,
        }
        services: dict[str, dict[str, Any]] = {}
        for method, answer in answers.items():
            services.setdefault(method.service, {})[method.name] = (
                grpc.unary_unary_rpc_method_handler(
                    _with_statuses(answer),
                    request_deserializer=method.request.FromString,
                    response_serializer=method.response.SerializeToString,
                )
            )
        return [grpc.method_handlers_generic_handler(name, m) for name, m in services.items()]

    def _spec(self, signature: str = "") -> Any:
        spec = wire.ModelSpec(name=self._model.name, signature_name=signature)
        spec.version.value = self._model.version
        return spec

    def _check_spec(self, request: Any) -> None:
        """Raises unless the request names this model, and this version or none."""
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise InvalidRequest("ModelSpec has no name specified.")
        if spec.name != self._model.name:
            raise Rejected(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: model {spec.name!r}; this server has "
                f"{self._model.name!r}.",
            )
        if spec.version_label:
            raise InvalidRequest(f"Unrecognized servable version label: {spec.version_label}")
        if spec.HasField("version") and spec.version.value != self._model.version:
            raise Rejected(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: version {spec.version.value} of {spec.name!r}; "
                f"this server has version {self._model.version}.",
            )


def _with_statuses(answer: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Wraps a method so that what it raises becomes a gRPC status."""

    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return answer(request)
        except Rejected as error:
            code, details = error.code, str(error)
        except InvalidRequest as error:
            code, details = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except tf.errors.OpError as error:
            code, details = _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message
        except Exception:
            _LOG.exception("A request failed")
            code, details = grpc.StatusCode.INTERNAL, "The server failed; see its log."
        context.abort(code, details)

    return handle
