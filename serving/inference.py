"""Runs requests on a loaded model: what each of the four prediction calls takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from serving import server_wire, wire
from serving.calls import Call, Rejected
from serving.execution import Executor, Limits
from serving.loader import LoadedModel
from serving.signatures import DEFAULT_SIGNATURE, Signature
from serving.steps import Steps
from serving.tensors import to_proto
from serving.validation import InvalidRequest, check_output_filter, decode_inputs

_INPUTS, _OUTPUTS, _SCORES, _CLASSES = "inputs", "outputs", "scores", "classes"


class Runner:
    """Answers the prediction calls with a model that it is handed.

    Each method takes the model, the request's message and the call, and returns the response's
    message. They raise `Rejected`, `InvalidRequest` or `tf.errors.OpError`.

    Args:
        limits: bounds of one request.
        observe: told, after each run of a graph, the model's name, the call's and the seconds.
        steps: runs each run of a graph.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        observe: Callable[[str, str, float], None] = lambda model, api, seconds: None,
        steps: Steps = Steps(),
    ):
        self._run = Executor(limits, observe, steps).run

    def predict(self, model: LoadedModel, request: Any, call: Call) -> Any:
        """Runs one signature on the inputs of a `PredictRequest`."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = model.signatures.get(name)
        if signature is None:
            raise Rejected(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Serving signature key {name!r} not found; the model has "
                f"{sorted(model.signatures)}.",
            )
        wanted = check_output_filter(signature, request.output_filter)
        scores = self._run(model, name, decode_inputs(signature, request.inputs), call, "Predict")
        response = wire.PredictResponse(model_spec=spec_of(model, name))
        for output in wanted:
            response.outputs[output].CopyFrom(to_proto(scores[output]))
        return response

    def classify(self, model: LoadedModel, request: Any, call: Call) -> Any:
        """Classifies the Examples of a `ClassificationRequest`."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = server_wire.ClassificationResponse(model_spec=spec_of(model, name))
        examples = _examples(request.input)
        response.result.CopyFrom(self._classes(model, name, examples, call, "Classify"))
        return response

    def regress(self, model: LoadedModel, request: Any, call: Call) -> Any:
        """Gives every Example of a `RegressionRequest` a value."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = server_wire.RegressionResponse(model_spec=spec_of(model, name))
        examples = _examples(request.input)
        response.result.CopyFrom(self._values(model, name, examples, call, "Regress"))
        return response

    def multi_inference(self, model: LoadedModel, request: Any, call: Call) -> Any:
        """Runs several classifying and regressing signatures on the same Examples."""
        names = [task.model_spec.signature_name or DEFAULT_SIGNATURE for task in request.tasks]
        for name in names:
            if names.count(name) > 1:
                raise InvalidRequest(f"Duplicate evaluation of signature: {name}")
        examples = _examples(request.input)
        response = server_wire.MultiInferenceResponse()
        for name, task in zip(names, request.tasks, strict=True):
            result = response.results.add(model_spec=spec_of(model, name))
            if task.method_name == server_wire.CLASSIFY_METHOD:
                classes = self._classes(model, name, examples, call, "MultiInference")
                result.classification_result.CopyFrom(classes)
            elif task.method_name == server_wire.REGRESS_METHOD:
                values = self._values(model, name, examples, call, "MultiInference")
                result.regression_result.CopyFrom(values)
            else:
                raise Rejected(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"Unsupported signature method_name: {task.method_name}",
                )
        return response

    def _classes(
        self, model: LoadedModel, name: str, examples: np.ndarray, call: Call, api: str
    ) -> Any:
        signature = _signature(model, name, server_wire.CLASSIFY_METHOD)
        if not {_SCORES, _CLASSES} & set(signature.outputs):
            raise Rejected(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Signature {name!r} gives {sorted(signature.outputs)}, neither 'scores' nor "
                "'classes'.",
            )
        found = self._run(model, name, {_INPUTS: examples}, call, api)
        scores, classes = found.get(_SCORES), found.get(_CLASSES)
        for values in (scores, classes):
            if values is not None and (values.ndim != 2 or len(values) != len(examples)):
                raise InvalidRequest(
                    f"Signature {name!r} gives shape {list(values.shape)}, expected one row an "
                    "example and one column a class."
                )
        result = server_wire.ClassificationResult()
        for row in range(len(examples)):
            entry = result.classifications.add()
            weights = None if scores is None else scores[row].tolist()
            labels = [""] * len(weights or ()) if classes is None else classes[row].tolist()
            weights = [0.0] * len(labels) if weights is None else weights
            for label, weight in zip(labels, weights, strict=True):
                text = label.decode("utf-8", "replace") if isinstance(label, bytes) else label
                entry.classes.add(label=text, score=weight)
        return result

    def _values(
        self, model: LoadedModel, name: str, examples: np.ndarray, call: Call, api: str
    ) -> Any:
        signature = _signature(model, name, server_wire.REGRESS_METHOD)
        if _OUTPUTS not in signature.outputs:
            raise Rejected(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Signature {name!r} gives {sorted(signature.outputs)}, not 'outputs'.",
            )
        values = self._run(model, name, {_INPUTS: examples}, call, api)[_OUTPUTS]
        if values.shape not in ((len(examples),), (len(examples), 1)):
            raise InvalidRequest(
                f"Signature {name!r} gives shape {list(values.shape)}, expected one value for each "
                f"of the {len(examples)} examples."
            )
        result = server_wire.RegressionResult()
        for value in values.ravel().tolist():
            result.regressions.add(value=value)
        return result


def spec_of(model: LoadedModel, signature: str = "") -> Any:
    """Returns the `ModelSpec` that says who answered."""
    spec = wire.ModelSpec(name=model.name, signature_name=signature)
    spec.version.value = model.version
    return spec


def _signature(model: LoadedModel, name: str, method: str) -> Signature:
    """Returns a signature that takes Examples, or raises `InvalidRequest`."""
    if name not in model.signatures:
        raise InvalidRequest(
            f"No signature was found with the name: {name}; the model has "
            f"{sorted(model.signatures)}."
        )
    actual = model.signature_defs[name].method_name
    if actual != method:
        raise InvalidRequest(
            f"Expected the method_name of signature {name!r} to be {method}. Was: {actual}"
        )
    if set(model.signatures[name].inputs) != {_INPUTS}:
        raise InvalidRequest(f"Expected one input Tensor of signature {name!r}, 'inputs'.")
    return model.signatures[name]


def _examples(message: Any) -> np.ndarray:
    """Returns the serialised Examples of an `Input`, `[R]`."""
    if message.HasField("example_list_with_context"):
        listed = message.example_list_with_context
        # Features of the context hold for every example: messages are joined by their bytes.
        records = [listed.context + example for example in listed.examples]
    else:
        records = list(message.example_list.examples)
    if not records:
        raise InvalidRequest("Input is empty.")
    array = np.empty(len(records), np.object_)
    array[:] = records
    return array
