import numpy as np
import pytest

from serving.signatures import Signature, TensorSpec
from serving.tensors import to_proto
from serving.validation import InvalidRequest, check_output_filter, decode_inputs

SIGNATURE = Signature(
    {
        "id": TensorSpec("int64", (-1, 2)),
        "weight": TensorSpec("float32", (-1,)),
        "scale": TensorSpec("float64", ()),
        "free": TensorSpec("string", None),
    },
    {"ctr": TensorSpec("float32", (-1,)), "dislike": TensorSpec("float32", (-1,))},
)


def inputs(**changes):
    arrays = {
        "id": np.array([[1, 2]]),
        "weight": np.array([0.5], np.float32),
        "scale": np.array(2.0),
        "free": np.array([[[b"x"]]], object),
    }
    return {name: to_proto(array) for name, array in (arrays | changes).items()}


def test_what_fits_is_decoded():
    arrays = decode_inputs(SIGNATURE, inputs())
    assert arrays["id"].tolist() == [[1, 2]]
    assert arrays["free"].tolist() == [[[b"x"]]]
    assert arrays["scale"].tolist() == 2.0


def test_a_batch_of_no_rows_fits():
    empty = {
        "id": np.zeros((0, 2), np.int64),
        "weight": np.zeros(0, np.float32),
        "free": np.zeros((0, 1), object),
    }
    assert decode_inputs(SIGNATURE, inputs(**empty))["id"].shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": np.array([[1.0, 2.0]])}, "Input 'id': expected int64, got float64"),
        ({"id": np.array([1, 2])}, r"Input 'id': expected shape \[-1, 2\].*, got \[2\]"),
        ({"id": np.array([[1, 2, 3]])}, r"Input 'id': expected shape .* got \[1, 3\]"),
        ({"weight": np.array([np.nan], np.float32)}, "Input 'weight' holds NaN or infinity"),
        ({"scale": np.array(-np.inf)}, "Input 'scale' holds NaN or infinity"),
        ({"weight": np.ones(2, np.float32)}, "differ in their 0th dimension.*'weight': 2"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_input(changes, expected):
    with pytest.raises(InvalidRequest, match=expected):
        decode_inputs(SIGNATURE, inputs(**changes))


def test_missing_and_extra_inputs_are_named_with_what_was_sent():
    protos = inputs(age=np.zeros(1))
    del protos["id"]
    with pytest.raises(InvalidRequest) as error:
        decode_inputs(SIGNATURE, protos)
    assert "Sent: ['age', 'free', 'scale', 'weight']" in str(error.value)
    assert "Missing but required: ['id']" in str(error.value)
    assert "Sent extra: ['age']" in str(error.value)


def test_an_output_filter_chooses_outputs():
    assert check_output_filter(SIGNATURE, []) == ["ctr", "dislike"]
    assert check_output_filter(SIGNATURE, ["dislike"]) == ["dislike"]
    with pytest.raises(InvalidRequest, match=r"'like' .* not in the signature; .*\['ctr'"):
        check_output_filter(SIGNATURE, ["ctr", "like"])
    with pytest.raises(InvalidRequest, match="'ctr' more than once"):
        check_output_filter(SIGNATURE, ["ctr", "ctr"])
