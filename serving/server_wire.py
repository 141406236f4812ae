"""The messages that servers alone read: Classify, Regress, MultiInference, reloads, request logs.

Declared as those of `serving.wire` are, and apart from them so that the client stays light. Members
of a `oneof` are plain fields here: the bytes are the same, and messages know whether they are set.

Field numbers: `tensorflow_serving/apis/{input,classification,regression,inference,logging,
model_management,prediction_log}.proto` and `tensorflow_serving/config/{model_server_config,
file_system_storage_path_source}.proto`.
"""

from __future__ import annotations

from typing import Any

from serving import wire

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "ExampleList": {"examples": (1, "repeated bytes")},
    "ExampleListWithContext": {"examples": (1, "repeated bytes"), "context": (2, "bytes")},
    "Input": {
        "example_list": (1, "ExampleList"),
        "example_list_with_context": (2, "ExampleListWithContext"),
    },
    "Class": {"label": (1, "string"), "score": (2, "float")},
    "Classifications": {"classes": (1, "repeated Class")},
    "ClassificationResult": {"classifications": (1, "repeated Classifications")},
    "ClassificationRequest": {"model_spec": (1, "ModelSpec"), "input": (2, "Input")},
    "ClassificationResponse": {
        "result": (1, "ClassificationResult"),
        "model_spec": (2, "ModelSpec"),
    },
    "Regression": {"value": (1, "float")},
    "RegressionResult": {"regressions": (1, "repeated Regression")},
    "RegressionRequest": {"model_spec": (1, "ModelSpec"), "input": (2, "Input")},
    "RegressionResponse": {"result": (1, "RegressionResult"), "model_spec": (2, "ModelSpec")},
    "InferenceTask": {"model_spec": (1, "ModelSpec"), "method_name": (2, "string")},
    "InferenceResult": {
        "model_spec": (1, "ModelSpec"),
        "classification_result": (2, "ClassificationResult"),
        "regression_result": (3, "RegressionResult"),
    },
    "MultiInferenceRequest": {"tasks": (1, "repeated InferenceTask"), "input": (2, "Input")},
    "MultiInferenceResponse": {"results": (1, "repeated InferenceResult")},
    "Latest": {"num_versions": (1, "uint32")},
    "All": {},
    "Specific": {"versions": (1, "repeated int64")},
    "ServableVersionPolicy": {
        "latest": (100, "Latest"),
        "all": (101, "All"),
        "specific": (102, "Specific"),
    },
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
        "model_version_policy": (7, "ServableVersionPolicy"),
        "version_labels": (8, "map<string, int64>"),
    },
    "ModelConfigList": {"config": (1, "repeated ModelConfig")},
    "ModelServerConfig": {"model_config_list": (1, "ModelConfigList")},
    "ReloadConfigRequest": {"config": (1, "ModelServerConfig")},
    "ReloadConfigResponse": {"status": (1, "StatusProto")},
    "SamplingConfig": {"sampling_rate": (1, "double")},
    "LogMetadata": {
        "model_spec": (1, "ModelSpec"),
        "sampling_config": (2, "SamplingConfig"),
        "timestamp_secs": (4, "int64"),
    },
    "ClassifyLog": {"request": (1, "ClassificationRequest")},
    "RegressLog": {"request": (1, "RegressionRequest")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "MultiInferenceLog": {"request": (1, "MultiInferenceRequest")},
    "PredictionLog": {
        "log_metadata": (1, "LogMetadata"),
        "classify_log": (2, "ClassifyLog"),
        "regress_log": (3, "RegressLog"),
        "multi_inference_log": (4, "MultiInferenceLog"),
        "predict_log": (6, "PredictLog"),
    },
}

_CLASSES = wire.declare("tfrec_feedback/server_wire.proto", _MESSAGES, [wire.FILE])
ClassificationResult: Any = _CLASSES["ClassificationResult"]
ClassificationRequest: Any = _CLASSES["ClassificationRequest"]
ClassificationResponse: Any = _CLASSES["ClassificationResponse"]
RegressionResult: Any = _CLASSES["RegressionResult"]
RegressionRequest: Any = _CLASSES["RegressionRequest"]
RegressionResponse: Any = _CLASSES["RegressionResponse"]
MultiInferenceRequest: Any = _CLASSES["MultiInferenceRequest"]
MultiInferenceResponse: Any = _CLASSES["MultiInferenceResponse"]
ModelServerConfig: Any = _CLASSES["ModelServerConfig"]
ReloadConfigRequest: Any = _CLASSES["ReloadConfigRequest"]
ReloadConfigResponse: Any = _CLASSES["ReloadConfigResponse"]
PredictionLog: Any = _CLASSES["PredictionLog"]

CLASSIFY_METHOD = "tensorflow/serving/classify"
"""Method name of the signatures that Classify runs."""
REGRESS_METHOD = "tensorflow/serving/regress"
"""Method name of the signatures that Regress runs."""

# ModelVersionStatus.State
START = 10
LOADING = 20
AVAILABLE = wire.AVAILABLE
UNLOADING = 40
END = 50

CLASSIFY = wire.Method(
    wire.PREDICTION_SERVICE, "Classify", ClassificationRequest, ClassificationResponse
)
REGRESS = wire.Method(wire.PREDICTION_SERVICE, "Regress", RegressionRequest, RegressionResponse)
MULTI_INFERENCE = wire.Method(
    wire.PREDICTION_SERVICE, "MultiInference", MultiInferenceRequest, MultiInferenceResponse
)
RELOAD_CONFIG = wire.Method(
    wire.MODEL_SERVICE, "HandleReloadConfigRequest", ReloadConfigRequest, ReloadConfigResponse
)
