"""Malformed requests: good ones, bent in structure or with their bytes changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from serving import server_wire, wire

_SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 100, 70_000, 2**24, 2**31, 2**40, 2**63 - 1])
_WORDS = st.sampled_from(
    ["", "rank", "predict_rows", "classify", "ctr", "user_id", "\x00", "é" * 99]
)
_DTYPES = st.one_of(st.sampled_from([1, 3, 7, 9, 10]), st.integers(-1, 130))


def malformed(goods: Sequence[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, bytes]]:
    """Returns a strategy for methods and bytes: good requests, bent or with their bytes changed.

    Args:
        goods: methods and messages of good requests.
    """
    good = st.sampled_from(goods)
    bent = good.flatmap(lambda g: _bent(g[0], g[1]))
    damaged = st.one_of(good.map(serialized), bent).flatmap(_damaged)
    noise = st.tuples(st.sampled_from([method for method, _ in goods]), st.binary(max_size=200))
    return st.one_of(bent, bent, bent, damaged, damaged, noise)


def serialized(good: tuple[Any, Any]) -> tuple[Any, bytes]:
    """Returns a request as it is sent."""
    return good[0], good[1].SerializeToString()


@st.composite
def _bent(draw: Any, method: Any, message: Any) -> tuple[Any, bytes]:
    """A good request with a few of its parts replaced."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(draw(st.integers(1, 3))):
        _bend(draw, changed)
    return method, changed.SerializeToString()


def _bend(draw: Any, message: Any) -> None:
    """Replaces one part of a message."""
    if isinstance(message, server_wire.MultiInferenceRequest):
        task = draw(st.sampled_from(message.tasks)) if message.tasks else message.tasks.add()
        if draw(st.booleans()):
            task.method_name = draw(_WORDS)
            message.tasks.add().CopyFrom(task)
        else:
            _bend_spec(draw, task.model_spec)
    elif draw(st.integers(0, 4)) == 0:
        _bend_spec(draw, message.model_spec)
    elif isinstance(message, wire.PredictRequest):
        _bend_inputs(draw, message)
    if hasattr(message, "input"):
        records = st.one_of(st.binary(max_size=50), st.sampled_from(_records(message)))
        message.input.example_list.examples[:] = draw(st.lists(records, max_size=4))
        if draw(st.booleans()):
            message.input.example_list_with_context.context = draw(records)


def _records(message: Any) -> list[bytes]:
    return [b"", *message.input.example_list.examples]


def _bend_spec(draw: Any, spec: Any) -> None:
    change = draw(st.integers(0, 4))
    if change == 0:
        spec.name = draw(_WORDS)
    elif change == 1:
        spec.signature_name = draw(_WORDS)
    elif change == 2:
        spec.version_label = draw(_WORDS)
    elif change == 3:
        spec.version.value = draw(_SIZES)
    else:
        spec.Clear()


def _bend_inputs(draw: Any, request: Any) -> None:
    names = sorted(request.inputs)
    change = draw(st.integers(0, 6))
    if change == 0 or not names:
        request.inputs[draw(_WORDS)].CopyFrom(draw(_tensors()))
    elif change == 1:
        del request.inputs[draw(st.sampled_from(names))]
    elif change == 2:
        request.output_filter.extend(draw(st.lists(_WORDS, max_size=3)))
    elif change == 3:
        request.inputs[draw(st.sampled_from(names))].CopyFrom(draw(_tensors()))
    else:
        proto = request.inputs[draw(st.sampled_from(names))]
        _bend_tensor(draw, proto)


def _bend_tensor(draw: Any, proto: Any) -> None:
    """Changes a tensor a little: it may still fit."""
    change = draw(st.integers(0, 4))
    if change == 0:
        proto.dtype = draw(_DTYPES)
    elif change == 1 and proto.tensor_shape.dim:
        draw(st.sampled_from(proto.tensor_shape.dim)).size = draw(_SIZES)
    elif change == 2:
        proto.tensor_content = draw(st.binary(max_size=len(proto.tensor_content)))
    elif change == 3:
        # Any values of the right amount: ids outside vocabularies, lengths beyond every shape.
        amount = len(proto.tensor_content)
        proto.tensor_content = draw(st.binary(min_size=amount, max_size=amount))
    else:
        proto.tensor_content = b""
        proto.int64_val[:] = draw(st.lists(_SIZES, max_size=3))


@st.composite
def _tensors(draw: Any) -> Any:
    proto = wire.TensorProto(dtype=draw(_DTYPES))
    for size in draw(st.lists(_SIZES, max_size=4)):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
    proto.tensor_content = draw(st.binary(max_size=24))
    proto.int64_val[:] = draw(st.lists(_SIZES, max_size=3))
    proto.float_val[:] = draw(st.lists(st.floats(width=32), max_size=3))
    proto.string_val[:] = draw(st.lists(st.binary(max_size=8), max_size=3))
    return proto


@st.composite
def _damaged(draw: Any, sent: tuple[Any, bytes]) -> tuple[Any, bytes]:
    """Bytes of a request, some of them flipped, cut out, put in or repeated."""
    method, data = sent[0], bytearray(sent[1])
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.integers(0, 4))
        if change <= 1 and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif change == 2:
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif change == 3:
            del data[place : place + draw(st.integers(1, 16))]
        else:
            data[place:place] = data[: draw(st.integers(0, 64))]
    return method, bytes(data)
