import pytest

from serving import wire
from serving.signatures import ModelMetadata, Signature, TensorSpec


def info(dtype: int, *sizes: int):
    message = wire.TensorInfo(dtype=dtype)
    for size in sizes:
        message.tensor_shape.dim.add(size=size)
    return message


def test_tensor_specs_hold_names_of_types_and_open_sizes():
    assert TensorSpec.from_proto(info(9, -1, 3)) == TensorSpec("int64", (-1, 3))
    assert TensorSpec.from_proto(info(7)) == TensorSpec("string", ())
    unknown = wire.TensorInfo(dtype=1, tensor_shape={"unknown_rank": True})
    assert TensorSpec.from_proto(unknown) == TensorSpec("float32", None)


def test_signatures_are_sorted_by_name():
    definition = wire.SignatureDef(inputs={"b": info(9), "a": info(9)}, outputs={"o": info(1)})
    signature = Signature.from_proto(definition)
    assert list(signature.inputs) == ["a", "b"]
    assert signature.outputs == {"o": TensorSpec("float32", ())}


def test_metadata_of_another_type_is_refused():
    response = wire.GetModelMetadataResponse()
    with pytest.raises(ValueError, match="expected metadata of type .*SignatureDefMap"):
        ModelMetadata.from_proto(response)
