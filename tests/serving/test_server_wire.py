"""The server's own messages against those of tensorflow-serving-api."""

import base64

import pytest
from google.protobuf import json_format
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from serving import server_wire


def spec() -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name="dfn", version_label="stable", signature_name="classify")


def examples() -> input_pb2.Input:
    example = example_pb2.Example()
    example.features.feature["x"].float_list.value.append(0.5)
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example, example]))


def examples_with_context() -> input_pb2.Input:
    listed = input_pb2.ExampleListWithContext(
        examples=examples().example_list.examples, context=examples().example_list.examples[0]
    )
    return input_pb2.Input(example_list_with_context=listed)


def classes() -> classification_pb2.ClassificationResult:
    result = classification_pb2.ClassificationResult()
    result.classifications.add().classes.add(label="click", score=0.25)
    return result


def values() -> regression_pb2.RegressionResult:
    result = regression_pb2.RegressionResult()
    result.regressions.add(value=0.75)
    return result


def config() -> model_server_config_pb2.ModelServerConfig:
    message = model_server_config_pb2.ModelServerConfig()
    policies = ({"latest": {"num_versions": 2}}, {"all": {}}, {"specific": {"versions": [3, 4]}})
    for number, policy in enumerate(policies):
        message.model_config_list.config.add(
            name=f"m{number}",
            base_path="/models/dfn",
            model_platform="tensorflow",
            model_version_policy=policy,
            version_labels={"canary": 4},
        )
    return message


def log(**request) -> prediction_log_pb2.PredictionLog:
    message = prediction_log_pb2.PredictionLog(**request)
    message.log_metadata.model_spec.CopyFrom(spec())
    message.log_metadata.sampling_config.sampling_rate = 0.25
    message.log_metadata.timestamp_secs = 1_790_000_000
    return message


CLASSIFICATION = classification_pb2.ClassificationRequest(model_spec=spec(), input=examples())
REGRESSION = regression_pb2.RegressionRequest(model_spec=spec(), input=examples_with_context())
MULTI = inference_pb2.MultiInferenceRequest(
    tasks=[
        inference_pb2.InferenceTask(model_spec=spec(), method_name="tensorflow/serving/regress")
    ],
    input=examples(),
)
ORIGINALS = {
    "ClassificationRequest": [CLASSIFICATION],
    "ClassificationResponse": [
        classification_pb2.ClassificationResponse(model_spec=spec(), result=classes())
    ],
    "RegressionRequest": [REGRESSION],
    "RegressionResponse": [regression_pb2.RegressionResponse(model_spec=spec(), result=values())],
    "MultiInferenceRequest": [MULTI],
    "MultiInferenceResponse": [
        inference_pb2.MultiInferenceResponse(
            results=[
                inference_pb2.InferenceResult(model_spec=spec(), classification_result=classes()),
                inference_pb2.InferenceResult(model_spec=spec(), regression_result=values()),
            ]
        )
    ],
    "ModelServerConfig": [config()],
    "ReloadConfigRequest": [model_management_pb2.ReloadConfigRequest(config=config())],
    "ReloadConfigResponse": [
        model_management_pb2.ReloadConfigResponse(status={"error_code": 9, "error_message": "no"})
    ],
    "PredictionLog": [
        log(predict_log={"request": predict_pb2.PredictRequest(model_spec=spec())}),
        log(classify_log={"request": CLASSIFICATION}),
        log(regress_log={"request": REGRESSION}),
        log(multi_inference_log={"request": MULTI}),
    ],
}
CASES = [(name, message) for name, messages in ORIGINALS.items() for message in messages]


def with_raw_examples(message) -> dict:
    """The fields of a message of TensorFlow's, Examples as the bytes that ours keeps them in."""
    parsed = json_format.MessageToDict(
        message, preserving_proto_field_name=True, use_integers_for_enums=True
    )
    return _raw(parsed)


def _raw(value):
    if isinstance(value, list):
        return [_raw(v) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"features"}:
        example = json_format.ParseDict(value, example_pb2.Example())
        return base64.b64encode(example.SerializeToString()).decode()
    return {name: _raw(v) for name, v in value.items()}


@pytest.mark.parametrize(("name", "original"), CASES)
def test_what_the_original_serialises_ours_parses_and_gives_back(name, original):
    ours = getattr(server_wire, name).FromString(original.SerializeToString())
    fields = json_format.MessageToDict(ours, preserving_proto_field_name=True)
    assert fields == with_raw_examples(original) != {}
    assert type(original).FromString(ours.SerializeToString()) == original


@pytest.mark.parametrize("name", ORIGINALS)
def test_our_names_are_not_those_of_tensorflow(name):
    assert getattr(server_wire, name).DESCRIPTOR.full_name == f"tfrec_feedback.wire.{name}"


def test_method_paths_are_those_of_tf_serving():
    assert server_wire.CLASSIFY.path == "/tensorflow.serving.PredictionService/Classify"
    assert server_wire.REGRESS.path == "/tensorflow.serving.PredictionService/Regress"
    assert server_wire.MULTI_INFERENCE.path == (
        "/tensorflow.serving.PredictionService/MultiInference"
    )
    assert server_wire.RELOAD_CONFIG.path == (
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    )
