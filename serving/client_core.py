"""All of a client but its input and output: which messages to send, and what answers mean.

Every method is a generator: it yields the calls to make, is sent their answers (or thrown their
`ServingError`s), and returns the result. `serving.client` drives them over a blocking channel,
`serving.aio` over an asyncio one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from serving import wire
from serving.batching import Scores, checked, cut, groups
from serving.contract import check_schema, derive_schema, signature_of
from serving.errors import ServingError
from serving.records import num_candidates
from serving.signatures import DEFAULT_SIGNATURE, ModelMetadata
from serving.tensors import TensorError, from_proto, to_proto
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Schema, SchemaError

_TOP_K = "top_k"
_PASSES = 3
_NOT_READY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """One message to send.

    Attributes:
        method: what to call.
        request: its message.
        retry: False to take the first answer.
    """

    method: wire.Method
    request: Any
    retry: bool = True


Result = TypeVar("Result")
Steps = Generator[Call, Any, Result]


class ClientCore:
    """One model of one server, as calls and what their answers mean.

    Arguments are those of `serving.client_base.ClientBase`.
    """

    def __init__(
        self, model: str, schema: Schema | None, version: int | None, label: str | None, limit: int
    ):
        self._model = model
        self._schema = schema
        self._agreed = False
        self._signatures: frozenset[str] = frozenset()
        self._version = version
        self._label = label
        self.limit = limit

    def rank_many(self, requests: Sequence[Mapping[str, Any]]) -> Steps[list[Scores]]:
        """Scores requests, as many in one message as the limit allows."""
        schema = self._schema or (yield from self.agree())
        batch = encode_requests(schema, requests)
        counts: list[int] = batch["num_candidates"].tolist()
        tasks = [task.name for task in schema.tasks]
        results = [{task: np.zeros(count, np.float32) for task in tasks} for count in counts]
        if any(counts):
            yield from self.agree()
        for start, stop, width in groups(counts, self.limit):
            spans = [
                (first, min(first + self.limit, width)) for first in range(0, width, self.limit)
            ]
            parts = [cut(schema, batch, slice(start, stop), slice(*span)) for span in spans]
            answers = yield from self._same_version(parts)
            for (first, last), scores in zip(spans, answers, strict=True):
                for task in tasks:
                    values = checked(scores, task, (stop - start, last - first))
                    for result, row in zip(results[start:stop], values, strict=True):
                        piece = result[task][first:last]
                        piece[:] = row[: len(piece)]
        return results

    def _same_version(self, parts: Sequence[Mapping[str, np.ndarray]]) -> Steps[list[Scores]]:
        """Scores the parts of one request; scores of two versions do not compare.

        Parts that another version answered than the last one are sent again.
        """
        answers: list[tuple[int, Scores] | None] = [None] * len(parts)
        version = None
        for _ in range(_PASSES):
            for index, part in enumerate(parts):
                answer = answers[index]
                if answer is None or answer[0] != version:
                    version, scores = yield from self._answer(DEFAULT_SIGNATURE, part)
                    answers[index] = version, scores
            if {answer[0] for answer in answers if answer} <= {version}:
                return [answer[1] for answer in answers if answer]
        raise ServingError(
            grpc.StatusCode.UNAVAILABLE,
            f"Versions of {self._model!r} took turns in answering one request of {len(parts)} "
            "messages: their scores do not compare.",
            "Raise `max_candidates_per_call`, or name a version.",
        )

    def top_k(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None,
        exclude: Sequence[Any],
        k: int | None,
    ) -> Steps[tuple[np.ndarray, np.ndarray]]:
        """Ranks the catalogue for one user."""
        schema = yield from self.agree()
        if _TOP_K not in self._signatures:
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Model {self._model!r} does not rank its catalogue: it has no signature "
                f"{_TOP_K!r}, which exported recommenders have. Send candidates to `rank`.",
            )
        item = schema.candidate[0].name
        request = {"context": context, "histories": histories or {}, "candidates": {item: exclude}}
        batch = encode_requests(schema, [request])
        batch["exclude_length"] = batch.pop("num_candidates")
        batch[f"exclude_{item}"] = batch.pop(item)
        answer = yield from self._predict(_TOP_K, batch)
        ids, scores = answer[item][0], answer["ctr"][0]
        if k is not None and not 1 <= k <= len(ids):
            raise ValueError(f"k must be from 1 to {len(ids)}, which the model names, got {k}.")
        left = scores[:k] > 0.0
        return ids[:k][left], scores[:k][left]

    def rank_examples(self, records: Sequence[bytes]) -> Steps[list[Scores]]:
        """Scores request records."""
        counts = [num_candidates(record, index) for index, record in enumerate(records)]
        results: list[Scores] = []
        for start, stop, width in groups(counts, self.limit):
            examples = np.array(records[start:stop], np.object_)
            scores = yield from self._predict("rank_examples", {"examples": examples})
            values = {task: checked(scores, task, (stop - start, width)) for task in scores}
            for row, count in enumerate(counts[start:stop]):
                results.append({task: v[row, :count].copy() for task, v in values.items()})
        return results

    def metadata(self) -> Steps[ModelMetadata]:
        """Asks for name, version and signatures."""
        request = wire.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=[wire.SIGNATURE_DEF]
        )
        answer = yield Call(wire.GET_MODEL_METADATA, request)
        try:
            return ModelMetadata.from_proto(answer)
        except (ValueError, DecodeError) as error:
            raise ServingError(grpc.StatusCode.INTERNAL, f"Unreadable metadata: {error}") from error

    def ready(self) -> Steps[bool]:
        """Asks once whether a version answers."""
        request = wire.GetModelStatusRequest(model_spec=self._spec())
        try:
            answer = yield Call(wire.GET_MODEL_STATUS, request, retry=False)
        except ServingError as error:
            if error.code in _NOT_READY:
                return False
            raise
        return any(status.state == wire.AVAILABLE for status in answer.model_version_status)

    def agree(self) -> Steps[Schema]:
        """Reads the schema from the served model, or checks the given one against it, once."""
        if self._agreed and self._schema is not None:
            return self._schema
        metadata = yield from self.metadata()
        try:
            signature = signature_of(metadata, DEFAULT_SIGNATURE)
            if self._schema is None:
                self._schema = derive_schema(signature)
            else:
                check_schema(self._schema, signature)
        except SchemaError as error:
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error
        self._signatures = frozenset(metadata.signatures)
        self._agreed = True
        return self._schema

    def _spec(self, signature: str = "") -> Any:
        spec = wire.ModelSpec(name=self._model, signature_name=signature)
        if self._version is not None:
            spec.version.value = self._version
        if self._label is not None:
            spec.version_label = self._label
        return spec

    def _predict(self, signature: str, batch: Mapping[str, np.ndarray]) -> Steps[Scores]:
        _, scores = yield from self._answer(signature, batch)
        return scores

    def _answer(self, signature: str, batch: Mapping[str, np.ndarray]) -> Steps[tuple[int, Scores]]:
        """Returns the version that answered, and its outputs."""
        request = wire.PredictRequest(model_spec=self._spec(signature))
        for name, array in batch.items():
            to_proto(array, request.inputs[name])
        answer = yield Call(wire.PREDICT, request)
        try:
            scores = {name: from_proto(proto) for name, proto in sorted(answer.outputs.items())}
            return answer.model_spec.version.value, scores
        except TensorError as error:
            raise ServingError(grpc.StatusCode.INTERNAL, f"Unreadable scores: {error}") from error
