import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from serving import wire


def filled_tensor() -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=9, version_number=3, tensor_content=b"\x01\x02")
    proto.tensor_shape.dim.add(size=2, name="rows")
    proto.tensor_shape.unknown_rank = True
    proto.float_val.extend([0.5, -1.5])
    proto.double_val.extend([0.25])
    proto.int_val.extend([-1, 2])
    proto.string_val.extend([b"\xff", b""])
    proto.int64_val.extend([-(2**63), 2**63 - 1])
    proto.bool_val.extend([True, False])
    proto.uint32_val.extend([2**32 - 1])
    proto.uint64_val.extend([2**64 - 1])
    return proto


def filled_model_spec() -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name="dfn", signature_name="rank")
    spec.version.value = 12
    return spec


def filled_signature() -> meta_graph_pb2.SignatureDef:
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    info = signature.inputs["hour"]
    info.name, info.dtype = "rank_hour:0", 9
    info.tensor_shape.dim.add(size=-1)
    signature.outputs["ctr"].name = "out:0"
    return signature


def filled_metadata() -> get_model_metadata_pb2.GetModelMetadataResponse:
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=filled_model_spec())
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signatures.signature_def["rank"].CopyFrom(filled_signature())
    response.metadata["signature_def"].Pack(signatures)
    return response


def filled_status() -> get_model_status_pb2.GetModelStatusResponse:
    response = get_model_status_pb2.GetModelStatusResponse()
    status = response.model_version_status.add(version=3, state=30)
    status.status.error_code, status.status.error_message = 5, "gone"
    return response


def filled_example() -> example_pb2.Example:
    example = example_pb2.Example()
    example.features.feature["a"].bytes_list.value.append(b"x")
    example.features.feature["b"].float_list.value.append(0.5)
    example.features.feature["c"].int64_list.value.extend([-3, 4])
    return example


def fields(message) -> dict:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, use_integers_for_enums=True
    )


ORIGINALS = {
    "TensorProto": filled_tensor(),
    "ModelSpec": filled_model_spec(),
    "SignatureDef": filled_signature(),
    "PredictRequest": predict_pb2.PredictRequest(
        model_spec=filled_model_spec(), inputs={"x": filled_tensor()}, output_filter=["ctr"]
    ),
    "PredictResponse": predict_pb2.PredictResponse(
        model_spec=filled_model_spec(), outputs={"ctr": filled_tensor()}
    ),
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=filled_model_spec(), metadata_field=["signature_def"]
    ),
    "GetModelMetadataResponse": filled_metadata(),
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest(
        model_spec=filled_model_spec()
    ),
    "GetModelStatusResponse": filled_status(),
    "Example": filled_example(),
}


def test_every_message_has_an_original_to_be_compared_with():
    exported = {name for name in vars(wire) if name in wire._MESSAGES}
    nested = {"TensorShapeProto", "TensorInfo", "SignatureDefMap"}
    assert exported == set(ORIGINALS) | nested


@pytest.mark.parametrize("name", ORIGINALS)
def test_what_the_original_serialises_ours_parses_field_by_field(name):
    original = ORIGINALS[name]
    ours = getattr(wire, name).FromString(original.SerializeToString())
    assert fields(ours) == fields(original) != {}


@pytest.mark.parametrize("name", ORIGINALS)
def test_what_ours_serialises_the_original_parses(name):
    original = ORIGINALS[name]
    ours = getattr(wire, name).FromString(original.SerializeToString())
    assert type(original).FromString(ours.SerializeToString(deterministic=True)) == original


@pytest.mark.parametrize("name", ORIGINALS)
def test_field_numbers_and_types_are_those_of_the_original(name):
    original = {f.name: f for f in type(ORIGINALS[name]).DESCRIPTOR.fields}
    for field in getattr(wire, name).DESCRIPTOR.fields:
        theirs = original[field.name]
        assert field.number == theirs.number
        enum_as_int = theirs.type == theirs.TYPE_ENUM and field.type == field.TYPE_INT32
        assert field.type == theirs.type or enum_as_int


def test_our_names_are_not_those_of_tensorflow():
    assert wire.PredictRequest.DESCRIPTOR.full_name == "tfrec_feedback.wire.PredictRequest"


def test_version_label_has_the_number_of_the_original():
    original = model_pb2.ModelSpec(name="dfn", version_label="canary")
    assert wire.ModelSpec.FromString(original.SerializeToString()).version_label == "canary"


def test_signature_map_is_read_from_the_packed_metadata():
    answer = wire.GetModelMetadataResponse.FromString(filled_metadata().SerializeToString())
    packed = answer.metadata["signature_def"]
    assert packed.type_url == wire.SIGNATURE_DEF_URL
    signatures = wire.SignatureDefMap.FromString(packed.value).signature_def
    assert signatures["rank"].inputs["hour"].name == "rank_hour:0"


def test_fields_ours_does_not_declare_survive():
    original = tensor_pb2.TensorProto(dtype=19, half_val=[15360])
    ours = wire.TensorProto.FromString(original.SerializeToString())
    assert tensor_pb2.TensorProto.FromString(ours.SerializeToString()) == original


def test_method_paths_are_those_of_tf_serving():
    assert wire.PREDICT.path == "/tensorflow.serving.PredictionService/Predict"
    assert wire.GET_MODEL_METADATA.path == "/tensorflow.serving.PredictionService/GetModelMetadata"
    assert wire.GET_MODEL_STATUS.path == "/tensorflow.serving.ModelService/GetModelStatus"
    states = get_model_status_pb2.ModelVersionStatus
    assert states.AVAILABLE == wire.AVAILABLE


def test_tensors_tensorflow_writes_are_read_from_our_message():
    original = tf.make_tensor_proto(np.array([[1, 2]], np.int64))
    ours = wire.TensorProto.FromString(original.SerializeToString())
    assert [dim.size for dim in ours.tensor_shape.dim] == [1, 2]
