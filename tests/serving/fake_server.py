"""A gRPC server without TensorFlow that answers as the tiny model does, and fails on demand."""

import dataclasses
import math
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np

from serving import wire
from serving.tensors import dtype_code, from_proto, to_proto
from tests.serving.tiny_model import SCHEMA

_HISTORY = 10.0


def signature():
    """The `rank` signature of the tiny model, as a `SignatureDef`."""
    definition = wire.SignatureDef()
    for spec in SCHEMA.inputs():
        info = definition.inputs[spec.name]
        info.dtype = dtype_code(spec.dtype)
        for axis in spec.axes:
            info.tensor_shape.dim.add(size=axis if isinstance(axis, int) else -1)
    for task in ("ctr", "dislike"):
        definition.outputs[task].dtype = dtype_code("float32")
    return definition


@dataclasses.dataclass
class FakeServer:
    """Answers Predict with `ctr = hour + item_id / 2 + 10 * clicks`, `dislike = price`.

    Attributes:
        base: folder of versions, the highest of which is served; None for version 7 alone.
        credentials: of the port; None for none.
        delay: seconds a Predict takes.
        script: statuses to answer with, one a Predict, before it goes well.
        bias: added to `ctr` by the versions of this dictionary.
        labels: versions by label.
        swap_delay: seconds that a new version takes to be served.
        stall_after: number of Predicts after which none is answered.
        script_after: number of Predicts after which the script begins.
        wrong_while_swapping: whether scores are wrong while a new version is not yet served.
    """

    base: Path | None = None
    credentials: grpc.ServerCredentials | None = None
    delay: float = 0.0
    script: list = dataclasses.field(default_factory=list)
    bias: dict = dataclasses.field(default_factory=dict)
    labels: dict = dataclasses.field(default_factory=dict)
    swap_delay: float = 0.0
    stall_after: float = math.inf
    script_after: int = 0
    wrong_while_swapping: bool = False

    def __enter__(self):
        self.peers, self.requests, self.cancelled = set(), [], threading.Event()
        self.first_seen = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        answers = {
            wire.PREDICT: self._predict,
            wire.GET_MODEL_METADATA: self._metadata,
            wire.GET_MODEL_STATUS: self._status,
        }
        for method, answer in answers.items():
            handler = grpc.unary_unary_rpc_method_handler(
                answer, method.request.FromString, method.response.SerializeToString
            )
            handlers = grpc.method_handlers_generic_handler(method.service, {method.name: handler})
            self._server.add_generic_rpc_handlers([handlers])
        add = self._server.add_insecure_port
        if self.credentials is not None:
            add = lambda address: self._server.add_secure_port(address, self.credentials)  # noqa: E731
        self.target = f"127.0.0.1:{add('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *exc_info):
        self._server.stop(None).wait()

    @property
    def version(self):
        if self.base is None:
            return 7
        now = time.monotonic()
        versions = [int(p.name) for p in self.base.iterdir() if p.name.isdecimal()]
        for version in versions:
            self.first_seen.setdefault(version, now)
        oldest = min(self.first_seen.values())
        ready = [
            v
            for v in versions
            if self.first_seen[v] == oldest or now - self.first_seen[v] >= self.swap_delay
        ]
        return max(ready)

    def _spec(self, request, context):
        spec = request.model_spec
        if spec.name != "tiny":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name!r}")
        if spec.version_label and spec.version_label not in self.labels:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized version label")
        answered = wire.ModelSpec(name="tiny")
        answered.version.value = self.labels.get(spec.version_label) or self.version
        return answered

    def _predict(self, request, context):
        self.peers.add(context.peer())
        self.requests.append(request)
        context.add_callback(lambda: context.code() is None and self.cancelled.set())
        if self.script and len(self.requests) > self.script_after:
            context.abort(*self.script.pop(0))
        stalls = len(self.requests) > self.stall_after
        end = time.monotonic() + (60.0 if stalls else self.delay)
        while time.monotonic() < end and context.is_active():
            time.sleep(0.005)
        spec = self._spec(request, context)
        x = {name: from_proto(proto) for name, proto in request.inputs.items()}
        clicks = x["click_item_id"] * (
            np.arange(x["click_item_id"].shape[1]) < x["click_length"][:, None]
        )
        user = x["hour"] + _HISTORY * clicks.sum(axis=1)
        ctr = user[:, None] + x["item_id"] / 2 + self.bias.get(spec.version.value, 0.0)
        if self.wrong_while_swapping and spec.version.value != max(self.first_seen):
            ctr = ctr + 0.5
        response = wire.PredictResponse(model_spec=spec)
        response.outputs["ctr"].CopyFrom(to_proto(ctr.astype(np.float32)))
        response.outputs["dislike"].CopyFrom(to_proto(x["price"]))
        return response

    def _metadata(self, request, context):
        response = wire.GetModelMetadataResponse(model_spec=self._spec(request, context))
        packed = response.metadata[wire.SIGNATURE_DEF]
        packed.type_url = wire.SIGNATURE_DEF_URL
        packed.value = wire.SignatureDefMap(
            signature_def={"serving_default": signature()}
        ).SerializeToString()
        return response

    def _status(self, request, context):
        response = wire.GetModelStatusResponse()
        version = self._spec(request, context).version.value
        response.model_version_status.add(version=version, state=wire.AVAILABLE)
        return response
