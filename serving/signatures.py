"""What a served model takes and gives, read from its signature definitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from serving import wire
from serving.tensors import dtype_name

DEFAULT_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One tensor of a signature.

    Attributes:
        dtype: `"int64"`, `"string"`, `"float32"`, ...
        shape: sizes, -1 where any size goes; None when even the rank is open.
    """

    dtype: str
    shape: tuple[int, ...] | None

    @classmethod
    def from_proto(cls, info: Any) -> TensorSpec:
        """Reads a `TensorInfo`."""
        sizes = tuple(dim.size for dim in info.tensor_shape.dim)
        return cls(dtype_name(info.dtype), None if info.tensor_shape.unknown_rank else sizes)


@dataclasses.dataclass(frozen=True)
class Signature:
    """One callable of a model: its named inputs and outputs."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_proto(cls, signature: Any) -> Signature:
        """Reads a `SignatureDef`."""
        return cls(
            {name: TensorSpec.from_proto(info) for name, info in sorted(signature.inputs.items())},
            {name: TensorSpec.from_proto(info) for name, info in sorted(signature.outputs.items())},
        )


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The model behind a server.

    Attributes:
        name: name it is served under.
        version: version that answered.
        signatures: its signatures by name.
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def from_proto(cls, response: Any) -> ModelMetadata:
        """Reads a `GetModelMetadataResponse`.

        Raises:
            ValueError: when the response holds no signature definitions.
        """
        packed = response.metadata[wire.SIGNATURE_DEF]
        if packed.type_url.rpartition("/")[2] != wire.SIGNATURE_DEF_URL.rpartition("/")[2]:
            raise ValueError(
                f"expected metadata of type {wire.SIGNATURE_DEF_URL}, got {packed.type_url!r}"
            )
        definitions = wire.SignatureDefMap.FromString(packed.value).signature_def
        signatures = {name: Signature.from_proto(d) for name, d in sorted(definitions.items())}
        return cls(response.model_spec.name, response.model_spec.version.value, signatures)
