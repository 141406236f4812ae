"""Checks of a Predict request against the signature it names, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.signatures import Signature, TensorSpec
from serving.tensors import TensorError, array_dtype, from_proto


class InvalidRequest(ValueError):
    """A request that does not fit its signature; the message names the input."""


def decode_inputs(signature: Signature, protos: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Decodes and checks the inputs of a request.

    Args:
        signature: what the inputs must fit.
        protos: `TensorProto`s by input name.

    Returns:
        Their arrays by name.

    Raises:
        InvalidRequest: for missing and extra inputs, malformed tensors, a wrong type, rank or
            fixed dimension, unequal 0th dimensions, and NaN or infinity.
    """
    _check_names(signature, protos)
    arrays = {}
    for name, spec in signature.inputs.items():
        try:
            arrays[name] = from_proto(protos[name])
        except TensorError as error:
            raise InvalidRequest(f"Input {name!r}: {error}") from error
        _check_array(name, spec, arrays[name])
    rows = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(rows.values())) > 1:
        raise InvalidRequest(f"Inputs differ in their 0th dimension, the batch: {rows}.")
    return arrays


def _check_names(signature: Signature, protos: Mapping[str, Any]) -> None:
    sent, needed = set(protos), set(signature.inputs)
    if sent != needed:
        raise InvalidRequest(
            f"The inputs do not match the signature. Sent: {sorted(sent)}. "
            f"Missing but required: {sorted(needed - sent)}. Sent extra: {sorted(sent - needed)}."
        )


def _check_array(name: str, spec: TensorSpec, array: np.ndarray) -> None:
    if array_dtype(array) != spec.dtype:
        raise InvalidRequest(f"Input {name!r}: expected {spec.dtype}, got {array_dtype(array)}.")
    if spec.shape is not None:
        fits = len(spec.shape) == array.ndim and all(
            size in (-1, got) for size, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise InvalidRequest(
                f"Input {name!r}: expected shape {list(spec.shape)} (-1: any size), got "
                f"{list(array.shape)}."
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest(f"Input {name!r} holds NaN or infinity; send finite numbers.")


def check_output_filter(signature: Signature, names: Sequence[str]) -> list[str]:
    """Returns the outputs to send: those asked for, all of them when none are named.

    Raises:
        InvalidRequest: for an unknown or repeated name.
    """
    for index, name in enumerate(names):
        if name not in signature.outputs:
            raise InvalidRequest(
                f"Output {name!r} of the output_filter is not in the signature; it has "
                f"{sorted(signature.outputs)}."
            )
        if name in names[:index]:
            raise InvalidRequest(f"The output_filter names {name!r} more than once.")
    return list(names) or sorted(signature.outputs)
