"""The client: requests in, scores out, without TensorFlow.

Example (with a server at localhost:8500):

    with FeedbackClient("localhost:8500", "dfn") as client:
        scores = client.rank(
            context={"user_id": 7, "hour": 21},
            histories={"click": {"item_id": [10, 12]}},
            candidates={"item_id": [11, 13, 14]},
        )
    scores["ctr"].argsort()[::-1]  # best candidate first
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from serving import wire
from serving.batching import Scores, checked, cut, groups
from serving.channel import Channel
from serving.contract import check_schema, derive_schema, signature_of
from serving.errors import ServingError
from serving.records import num_candidates
from serving.signatures import DEFAULT_SIGNATURE, ModelMetadata
from serving.tensors import TensorError, from_proto, to_proto
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import Schema, SchemaError

_TOP_K = "top_k"
_NOT_READY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND,
)


class FeedbackClient:
    """Scores candidates with a model behind TF Serving or the embedded server.

    Safe to use from several threads. The connection is made on first use.

    Args:
        target: `host:port` of the server.
        model: name the model is served under.
        schema: what a request holds. Checked against the served model on first use; when left
            out it is read from there.
        timeout: seconds a call of this object may take, retries and splits included.
        version: a version of the model; the newest when left out.
        max_candidates_per_call: candidates, counting padding, in one message; more are sent in
            several, each with the user's part.

    Raises:
        ValueError: for a timeout or limit that is not positive.
    """

    def __init__(
        self,
        target: str,
        model: str,
        schema: Schema | None = None,
        *,
        timeout: float = 5.0,
        version: int | None = None,
        max_candidates_per_call: int = 1000,
    ):
        if timeout <= 0 or max_candidates_per_call < 1:
            raise ValueError(
                "timeout and max_candidates_per_call must be positive, got "
                f"{timeout} and {max_candidates_per_call}."
            )
        self._channel = Channel(target)
        self._model = model
        self._schema = schema
        self._agreed = False
        self._signatures: frozenset[str] = frozenset()
        self._timeout = timeout
        self._version = version
        self._limit = max_candidates_per_call

    def rank(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None,
        candidates: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    ) -> Scores:
        """Scores one user's candidates.

        Args:
            context: one value a feature.
            histories: past events by feedback, oldest first; what is left out counts as none.
            candidates: columns `{feature: [N values]}`, or N rows `{feature: value}`.

        Returns:
            Scores `[N]` of every task, e.g. `{"ctr": ..., "dislike": ...}`, in the order of the
            candidates. No candidates give empty arrays.

        Raises:
            RequestError: when the arguments do not fit the schema; nothing is sent.
            ServingError: when the server does not answer, or refuses.
        """
        request = {"context": context, "histories": histories or {}, "candidates": candidates}
        return self.rank_many([request])[0]

    def rank_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Scores]:
        """Scores several requests, as many in one message as its limit allows.

        Args:
            requests: mappings with `context`, `histories` and `candidates` as `rank` takes them.

        Returns:
            The scores of each request, in order.

        Raises:
            RequestError: when a request does not fit the schema; nothing is sent.
            ServingError: when the server does not answer, or refuses.
        """
        deadline = time.monotonic() + self._timeout
        schema = self._schema or self._agree(deadline)
        batch = encode_requests(schema, requests)
        counts: list[int] = batch["num_candidates"].tolist()
        tasks = [task.name for task in schema.tasks]
        results = [{task: np.zeros(count, np.float32) for task in tasks} for count in counts]
        if any(counts):
            self._agree(deadline)
        for start, stop, width in groups(counts, self._limit):
            for first in range(0, width, self._limit):
                last = min(first + self._limit, width)
                part = cut(schema, batch, slice(start, stop), slice(first, last))
                scores = self._predict(DEFAULT_SIGNATURE, part, deadline)
                for task in tasks:
                    values = checked(scores, task, (stop - start, last - first))
                    for result, row in zip(results[start:stop], values, strict=True):
                        piece = result[task][first:last]
                        piece[:] = row[: len(piece)]
        return results

    def top_k(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None = None,
        exclude: Sequence[Any] = (),
        k: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ranks the whole catalogue for one user; recommenders alone can.

        Args:
            context: one value a feature.
            histories: past events by feedback, where the model reads any.
            exclude: ids of items that are not to be named, such as those the user has met.
            k: how many items; default, and at most, as many as the model was exported with.

        Returns:
            Ids and click scores of the best items, best first; fewer than k where no more are left.

        Raises:
            RequestError: when the arguments do not fit the schema; nothing is sent.
            ServingError: when the server does not answer, or the model has no catalogue.
            ValueError: for a k below 1, or above what the model names.
        """
        deadline = time.monotonic() + self._timeout
        schema = self._agree(deadline)
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
        answer = self._predict(_TOP_K, batch, deadline)
        ids, scores = answer[item][0], answer["ctr"][0]
        if k is not None and not 1 <= k <= len(ids):
            raise ValueError(f"k must be from 1 to {len(ids)}, which the model names, got {k}.")
        left = scores[:k] > 0.0
        return ids[:k][left], scores[:k][left]

    def rank_examples(self, records: Sequence[bytes]) -> list[Scores]:
        """Scores request records as they stand in TFRecord files, through `rank_examples`.

        Args:
            records: serialised `tf.train.Example`s.

        Returns:
            The scores of each record's candidates, in order.

        Raises:
            RequestError: when the bytes are not request records; nothing is sent.
            ServingError: when the server does not answer, or refuses.
        """
        deadline = time.monotonic() + self._timeout
        counts = [num_candidates(record, index) for index, record in enumerate(records)]
        results: list[Scores] = []
        for start, stop, width in groups(counts, self._limit):
            examples = np.array(records[start:stop], np.object_)
            scores = self._predict("rank_examples", {"examples": examples}, deadline)
            values = {task: checked(scores, task, (stop - start, width)) for task in scores}
            for row, count in enumerate(counts[start:stop]):
                results.append({task: v[row, :count].copy() for task, v in values.items()})
        return results

    def metadata(self) -> ModelMetadata:
        """Returns name, version and signatures of the served model.

        Raises:
            ServingError: when the server does not answer, or does not know the model.
        """
        return self._metadata(time.monotonic() + self._timeout)

    def ready(self) -> bool:
        """Returns whether the model answers now: one try, at most a second."""
        request = wire.GetModelStatusRequest(model_spec=self._spec())
        deadline = time.monotonic() + min(self._timeout, 1.0)
        try:
            answer = self._channel.call(wire.GET_MODEL_STATUS, request, deadline, retry=False)
        except ServingError as error:
            if error.code in _NOT_READY:
                return False
            raise
        return any(status.state == wire.AVAILABLE for status in answer.model_version_status)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> FeedbackClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _spec(self, signature: str = "") -> Any:
        spec = wire.ModelSpec(name=self._model, signature_name=signature)
        if self._version is not None:
            spec.version.value = self._version
        return spec

    def _metadata(self, deadline: float) -> ModelMetadata:
        request = wire.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=[wire.SIGNATURE_DEF]
        )
        answer = self._channel.call(wire.GET_MODEL_METADATA, request, deadline)
        try:
            return ModelMetadata.from_proto(answer)
        except (ValueError, DecodeError) as error:
            raise ServingError(grpc.StatusCode.INTERNAL, f"Unreadable metadata: {error}") from error

    def _agree(self, deadline: float) -> Schema:
        """Reads the schema from the served model, or checks the given one against it, once."""
        if self._agreed and self._schema is not None:
            return self._schema
        metadata = self._metadata(deadline)
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

    def _predict(self, signature: str, batch: Mapping[str, np.ndarray], deadline: float) -> Scores:
        request = wire.PredictRequest(model_spec=self._spec(signature))
        for name, array in batch.items():
            request.inputs[name].CopyFrom(to_proto(array))
        answer = self._channel.call(wire.PREDICT, request, deadline)
        try:
            return {name: from_proto(proto) for name, proto in sorted(answer.outputs.items())}
        except TensorError as error:
            raise ServingError(grpc.StatusCode.INTERNAL, f"Unreadable scores: {error}") from error


__all__ = ["FeedbackClient", "Scores", "ServingError"]
