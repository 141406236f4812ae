"""The client: requests in, scores out, without TensorFlow.

Example (with a server at localhost:8500):

    with FeedbackClient("localhost:8500", "dfn") as client:
        scores = client.rank(
            context={"user_id": 7, "hour": 21},
            histories={"click": {"item_id": [10, 12]}},
            candidates={"item_id": [11, 13, 14]},
        )
    scores["ctr"].argsort()[::-1]  # best candidate first

From a shell, without any Python:

    python -m serving.client --target localhost:8500 --model dfn --request request.json
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.batching import Scores
from serving.channel import Channel
from serving.client_base import ClientBase
from serving.client_calls import CallRecord, Connection
from serving.client_core import Result, Steps
from serving.errors import ServingError
from serving.policy import Cancellation, RetryPolicy, TlsConfig
from serving.signatures import ModelMetadata
from tfrec_feedback.schema import Schema


class FeedbackClient(ClientBase):
    """Scores candidates with a model behind TF Serving or the embedded server.

    Safe to use from several threads. The connection is made on first use, and kept. Arguments
    are those of `ClientBase`; every method takes

    - `timeout`: seconds for this call instead of the client's own;
    - `cancellation`: an object whose `cancel()`, called from another thread, ends the call.

    and raises `ServingError` when the server does not answer in time, or refuses; its `code` says
    which, CANCELLED after a cancellation.

    Example:
        client = FeedbackClient(
            "ranker:8500", "dfn", label="canary", timeout=0.2,
            tls=TlsConfig(root_certificates=Path("ca.pem")),
            retry=RetryPolicy(max_attempts=3), log=logging.getLogger("ranker"),
        )
    """

    def _open(self, connection: Connection) -> Channel:
        return Channel(connection)

    def rank(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None,
        candidates: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Scores:
        """Scores one user's candidates.

        Args:
            context: one value a feature.
            histories: past events by feedback, oldest first; what is left out counts as none.
            candidates: columns `{feature: [N values]}`, or N rows `{feature: value}`.
            timeout: see the class.
            cancellation: see the class.

        Returns:
            Scores `[N]` of every task, e.g. `{"ctr": ..., "dislike": ...}`, in the order of the
            candidates. No candidates give empty arrays.

        Raises:
            RequestError: when the arguments do not fit the schema; nothing is sent.
            ServingError: see the class.
        """
        request = {"context": context, "histories": histories or {}, "candidates": candidates}
        return self.rank_many([request], timeout=timeout, cancellation=cancellation)[0]

    def rank_many(
        self,
        requests: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> list[Scores]:
        """Scores several requests, as many in one message as its limit allows.

        Args:
            requests: mappings with `context`, `histories` and `candidates` as `rank` takes them.
            timeout: see the class; for all of them.
            cancellation: see the class.

        Returns:
            The scores of each request, in order.

        Raises:
            RequestError: when a request does not fit the schema; nothing is sent.
            ServingError: see the class.
        """
        return self._run(self._core.rank_many(requests), self._deadline(timeout), cancellation)

    def top_k(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None = None,
        exclude: Sequence[Any] = (),
        k: int | None = None,
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ranks the whole catalogue for one user; recommenders alone can.

        Args:
            context: one value a feature.
            histories: past events by feedback, where the model reads any.
            exclude: ids of items that are not to be named, such as those the user has met.
            k: how many items; default, and at most, as many as the model was exported with.
            timeout: see the class.
            cancellation: see the class.

        Returns:
            Ids `[K]` and click scores `[K]` of the best items, best first; fewer than k where no
            more are left.

        Raises:
            RequestError: when the arguments do not fit the schema; nothing is sent.
            ServingError: see the class; or the model has no catalogue.
            ValueError: for a k below 1, or above what the model names.
        """
        steps = self._core.top_k(context, histories, exclude, k)
        return self._run(steps, self._deadline(timeout), cancellation)

    def rank_examples(
        self,
        records: Sequence[bytes],
        *,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> list[Scores]:
        """Scores request records as they stand in TFRecord files, through `rank_examples`.

        Args:
            records: serialised `tf.train.Example`s.
            timeout: see the class; for all of them.
            cancellation: see the class.

        Returns:
            The scores of each record's candidates, in order.

        Raises:
            RequestError: when the bytes are not request records; nothing is sent.
            ServingError: see the class.
        """
        return self._run(self._core.rank_examples(records), self._deadline(timeout), cancellation)

    def schema(self, *, timeout: float | None = None) -> Schema:
        """Returns what a request holds: the given schema, checked, or one read from the server.

        Args:
            timeout: see the class.

        Raises:
            ServingError: see the class; FAILED_PRECONDITION when schema and model do not belong
                together.
        """
        return self._run(self._core.agree(), self._deadline(timeout), None)

    def metadata(self, *, timeout: float | None = None) -> ModelMetadata:
        """Returns name, version and signatures of the served model.

        Args:
            timeout: see the class.

        Raises:
            ServingError: see the class; NOT_FOUND when the server does not know the model.
        """
        return self._run(self._core.metadata(), self._deadline(timeout), None)

    def ready(self, *, timeout: float | None = None) -> bool:
        """Returns whether the model answers now: one try, at most a second."""
        return self._run(self._core.ready(), self._ready_deadline(timeout), None)

    def close(self) -> None:
        """Closes the connection; calls that are under way in other threads are cancelled."""
        self._channel.close()

    def __enter__(self) -> FeedbackClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(
        self, steps: Steps[Result], deadline: float, cancellation: Cancellation | None
    ) -> Result:
        """Makes the calls that the core asks for, one after the other."""
        try:
            call = next(steps)
            while True:
                try:
                    answer = self._channel.call(
                        call.method, call.request, deadline, call.retry, cancellation
                    )
                except ServingError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as done:
            return done.value


__all__ = [
    "CallRecord",
    "Cancellation",
    "FeedbackClient",
    "RetryPolicy",
    "Scores",
    "ServingError",
    "TlsConfig",
]

if __name__ == "__main__":
    from serving.client_command import main

    sys.exit(main())
