"""Every answer, over real gRPC, with the stubs and messages of TF Serving's own client."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving.tiny_model import CTR, DISLIKE, REQUEST, SCHEMA, record
from tfrec_feedback.requests import encode_requests


@pytest.fixture(scope="module")
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(signature="", **changes) -> predict_pb2.PredictRequest:
    """A good request, with some inputs changed or (None) taken out."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    for name, array in (encode_requests(SCHEMA, [REQUEST]) | changes).items():
        if array is not None:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def refusal(call, request) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=10)
    return error.value.code().name, error.value.details()


def test_tf_servings_own_client_gets_the_scores(stub):
    response = stub.Predict(predict_request(), timeout=10)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["ctr"]), [CTR])
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["dislike"]), [DISLIKE])
    assert response.model_spec.name == "tiny"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "serving_default"


def test_a_named_signature_gives_the_scores_of_the_default(stub):
    response = stub.Predict(predict_request("rank"), timeout=10)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["ctr"]), [CTR])


def test_rows_of_one_candidate_give_the_scores_of_the_default(stub):
    rows = {
        name: array[0] if name in ("item_id", "tag", "tag_count", "price") else array.repeat(3, 0)
        for name, array in encode_requests(SCHEMA, [REQUEST]).items()
    }
    response = stub.Predict(predict_request("predict_rows", **(rows | {"num_candidates": None})))
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["ctr"]), CTR)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["dislike"]), DISLIKE)


def test_only_the_outputs_asked_for_are_sent(stub):
    request = predict_request()
    request.output_filter.append("dislike")
    assert set(stub.Predict(request, timeout=10).outputs) == {"dislike"}


def test_an_empty_batch_gives_no_scores(stub):
    empty = {name: array[:0] for name, array in encode_requests(SCHEMA, [REQUEST]).items()}
    response = stub.Predict(predict_request(**empty), timeout=10)
    assert tf.make_ndarray(response.outputs["ctr"]).shape == (0, 3)


def test_the_served_version_can_be_asked_for(stub):
    request = predict_request()
    request.model_spec.version.value = 7
    assert stub.Predict(request, timeout=10).model_spec.version.value == 7


NAN = np.array([[0.5, np.nan, 0.25]], np.float32)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hour": None}, "Missing but required: ['hour']. Sent extra: []"),
        ({"age": np.array([1])}, "Sent extra: ['age']"),
        ({"hour": np.array([20], np.int32)}, "Input 'hour': expected int64, got int32"),
        ({"hour": np.array([[20]])}, "Input 'hour': expected shape [-1] (-1: any size)"),
        ({"tag": np.zeros((1, 3, 2), "S1")}, "Input 'tag': expected shape [-1, -1, 3]"),
        ({"hour": np.array([20, 21])}, "differ in their 0th dimension"),
        ({"price": NAN}, "Input 'price' holds NaN"),
        ({"price": np.where(np.isnan(NAN), np.inf, NAN)}, "Input 'price' holds NaN or infinity"),
    ],
)
def test_inputs_that_do_not_fit_are_invalid_and_named(stub, changes, expected):
    code, details = refusal(stub.Predict, predict_request(**changes))
    assert code == "INVALID_ARGUMENT"
    assert expected in details


def test_a_malformed_tensor_is_invalid_and_named(stub):
    request = predict_request()
    request.inputs["hour"].tensor_content = b"123"
    code, details = refusal(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "Input 'hour': tensor_content holds 3 bytes" in details


@pytest.mark.parametrize(
    ("names", "expected"), [(["like"], "'like'"), (["ctr", "ctr"], "more than once")]
)
def test_an_output_filter_that_does_not_fit_is_invalid(stub, names, expected):
    request = predict_request()
    request.output_filter.extend(names)
    code, details = refusal(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert expected in details


def test_no_model_spec_is_invalid(stub):
    request = predict_pb2.PredictRequest()
    assert refusal(stub.Predict, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.signature_name = "rank"
    details = "ModelSpec has no name specified."
    assert refusal(stub.Predict, request) == ("INVALID_ARGUMENT", details)


def test_an_unknown_model_or_version_is_not_found(stub):
    request = predict_request()
    request.model_spec.version.value = 6
    code, details = refusal(stub.Predict, request)
    assert (code, "version 6" in details) == ("NOT_FOUND", True)
    request.model_spec.name = "other"
    code, details = refusal(stub.Predict, request)
    assert (code, "'other'" in details) == ("NOT_FOUND", True)


def test_an_unknown_version_label_is_invalid(stub):
    request = predict_request()
    request.model_spec.version_label = "canary"
    code, details = refusal(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "Unrecognized servable version label: canary" in details


def test_an_unknown_signature_is_a_failed_precondition(stub):
    code, details = refusal(stub.Predict, predict_request("classify"))
    assert code == "FAILED_PRECONDITION"
    assert "'classify' not found" in details


def test_what_the_graph_refuses_is_invalid(stub):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "rank_examples"
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto([record(1, [2], [3.0]), b"garbage"]))
    code, details = refusal(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "Could not parse example" in details


def test_garbage_bytes_are_internal(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refusal(call, b"\xff\xff\xff")[0] == "INTERNAL"


def test_metadata_holds_every_signature_but_the_loaders_own(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = stub.GetModelMetadata(request, timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    names = {"serving_default", "rank", "predict_rows", "rank_examples", "slow"}
    assert set(signatures.signature_def) == names
    hour = signatures.signature_def["rank"].inputs["hour"]
    assert hour.dtype == tf.int64.as_datatype_enum
    assert response.model_spec.version.value == 7


def test_metadata_of_another_kind_or_model_is_refused(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["weights"])
    request.model_spec.name = "tiny"
    code, details = refusal(stub.GetModelMetadata, request)
    assert (code, "weights" in details) == ("INVALID_ARGUMENT", True)
    request.model_spec.name = "other"
    assert refusal(stub.GetModelMetadata, request)[0] == "NOT_FOUND"


def test_status_of_the_served_version_is_available(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    status = stub.GetModelStatus(request, timeout=10).model_version_status[0]
    assert (status.version, status.state) == (7, status.AVAILABLE)
    assert status.HasField("status")
    request.model_spec.name = "other"
    assert refusal(stub.GetModelStatus, request)[0] == "NOT_FOUND"


def test_calls_the_server_does_not_have_are_unimplemented(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/PredictStreamed")
    assert refusal(call, b"")[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    "service", ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
)
def test_health_checks_say_serving(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert response.status == health_pb2.HealthCheckResponse.SERVING
