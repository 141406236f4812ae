"""TF Serving's gRPC messages without TensorFlow: the same field numbers under names of our own.

Importing `tensorflow_serving.apis` loads all of TensorFlow. These messages are declared at run time
from the tables below, in the protobuf package `tfrec_feedback.wire`, so that they can live beside
the originals in one process: what one side serialises the other parses.

Only the fields this package reads or writes are declared; protobuf keeps the others untouched.
Field numbers: `tensorflow/core/framework/{tensor,tensor_shape}.proto`,
`tensorflow/core/protobuf/meta_graph.proto`, `tensorflow/core/example/{example,feature}.proto` and
`tensorflow_serving/apis/{model,predict,get_model_metadata,get_model_status}.proto`.

Example:
    >>> request = PredictRequest()
    >>> request.model_spec.name = "dfn"
    >>> PredictRequest.FromString(request.SerializeToString()).model_spec.name
    'dfn'
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)

_PACKAGE = "tfrec_feedback.wire"
FILE = "tfrec_feedback/wire.proto"
"""Name under which the messages below are declared."""

# message -> field -> (number, type); types read as in a .proto file. Enums travel as int32.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "version_number": (3, "int32"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
        "uint32_val": (16, "repeated uint32"),
        "uint64_val": (17, "repeated uint64"),
    },
    "TensorInfo": {
        "name": (1, "string"),
        "dtype": (2, "int32"),
        "tensor_shape": (3, "TensorShapeProto"),
    },
    "SignatureDef": {
        "inputs": (1, "map<string, TensorInfo>"),
        "outputs": (2, "map<string, TensorInfo>"),
        "method_name": (3, "string"),
    },
    "SignatureDefMap": {"signature_def": (1, "map<string, SignatureDef>")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "google.protobuf.Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec"),
        "inputs": (2, "map<string, TensorProto>"),
        "output_filter": (3, "repeated string"),
    },
    "PredictResponse": {
        "outputs": (1, "map<string, TensorProto>"),
        "model_spec": (2, "ModelSpec"),
    },
    "GetModelMetadataRequest": {
        "model_spec": (1, "ModelSpec"),
        "metadata_field": (2, "repeated string"),
    },
    "GetModelMetadataResponse": {
        "model_spec": (1, "ModelSpec"),
        "metadata": (2, "map<string, google.protobuf.Any>"),
    },
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {
        "version": (1, "int64"),
        "state": (2, "int32"),
        "status": (3, "StatusProto"),
    },
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
    "BytesList": {"value": (1, "repeated bytes")},
    "FloatList": {"value": (1, "repeated float")},
    "Int64List": {"value": (1, "repeated int64")},
    "Feature": {
        "bytes_list": (1, "BytesList"),
        "float_list": (2, "FloatList"),
        "int64_list": (3, "Int64List"),
    },
    "Features": {"feature": (1, "map<string, Feature>")},
    "Example": {"features": (1, "Features")},
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        # A map is a repeated message of key and value with a flag set.
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        key, value = kind.removeprefix("map<").removesuffix(">").split(", ")
        _add_field(entry, "key", 1, key)
        _add_field(entry, "value", 2, value)
        kind = f"repeated {_PACKAGE}.{message.name}.{entry.name}"
    if kind.startswith("repeated "):
        field.label = _Field.LABEL_REPEATED
        kind = kind.removeprefix("repeated ")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{kind}" if "." in kind else f".{_PACKAGE}.{kind}"


def declare(
    file_name: str,
    messages: Mapping[str, Mapping[str, tuple[int, str]]],
    dependencies: Sequence[str] = (),
) -> dict[str, Any]:
    """Declares messages in this package.

    Args:
        file_name: name of the `.proto` file that they make up.
        messages: fields by message, as in the table above; they may name messages of other files.
        dependencies: names of those other files.

    Returns:
        The classes by message name.
    """
    file = descriptor_pb2.FileDescriptorProto(name=file_name, package=_PACKAGE, syntax="proto3")
    file.dependency.extend(dependencies)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in messages
    }


_CLASSES = declare(FILE, _MESSAGES, [any_pb2.DESCRIPTOR.name, wrappers_pb2.DESCRIPTOR.name])
TensorShapeProto: Any = _CLASSES["TensorShapeProto"]
TensorProto: Any = _CLASSES["TensorProto"]
TensorInfo: Any = _CLASSES["TensorInfo"]
SignatureDef: Any = _CLASSES["SignatureDef"]
SignatureDefMap: Any = _CLASSES["SignatureDefMap"]
ModelSpec: Any = _CLASSES["ModelSpec"]
PredictRequest: Any = _CLASSES["PredictRequest"]
PredictResponse: Any = _CLASSES["PredictResponse"]
GetModelMetadataRequest: Any = _CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse: Any = _CLASSES["GetModelMetadataResponse"]
GetModelStatusRequest: Any = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse: Any = _CLASSES["GetModelStatusResponse"]
Example: Any = _CLASSES["Example"]

SIGNATURE_DEF = "signature_def"
"""The one metadata field of GetModelMetadata."""
SIGNATURE_DEF_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
"""Type of the `Any` that GetModelMetadata answers with."""
AVAILABLE = 30
"""ModelVersionStatus.State of a version that answers requests."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One remote call: the service it belongs to, its name, and its two messages."""

    service: str
    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        """Path of the HTTP/2 request."""
        return f"/{self.service}/{self.name}"


PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
PREDICT = Method(PREDICTION_SERVICE, "Predict", PredictRequest, PredictResponse)
GET_MODEL_METADATA = Method(
    PREDICTION_SERVICE, "GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
)
GET_MODEL_STATUS = Method(
    MODEL_SERVICE, "GetModelStatus", GetModelStatusRequest, GetModelStatusResponse
)
