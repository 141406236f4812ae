"""The client for asyncio: the methods of `serving.client.FeedbackClient`, awaited.

Example (with a server at localhost:8500):

    async with AsyncFeedbackClient("localhost:8500", "dfn") as client:
        first, second = await asyncio.gather(client.rank(**one), client.rank(**other))

A call is cancelled like any task: `task.cancel()` or `asyncio.timeout` end it on the server too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np

from serving.batching import Scores
from serving.client_base import ClientBase
from serving.client_calls import Attempts, Connection
from serving.client_core import Result, Steps
from serving.errors import ServingError
from serving.signatures import ModelMetadata
from serving.wire import Method
from tfrec_feedback.schema import Schema

_CLOSED = "The client is closed; make another."


class AsyncChannel:
    """`serving.channel.Channel` for one event loop.

    Args:
        connection: how the server is reached.
    """

    def __init__(self, connection: Connection):
        self._connection = connection
        if connection.tls is not None:
            connection.tls.credentials()  # a wrong file is told of here, not on the first call
        self._channel: Any = None
        self._closed = False

    async def call(self, method: Method, request: Any, deadline: float, retry: bool = True) -> Any:
        """Sends one message and returns the answer; arguments and errors as in `Channel.call`."""
        attempts = Attempts(self._connection, method, request, deadline, retry)
        while True:
            seconds = attempts.begin()
            if self._closed:
                raise attempts.cancelled(_CLOSED)
            try:
                return attempts.succeeded(await self._stub(method)(request, timeout=seconds))
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            except asyncio.CancelledError as error:
                ended = attempts.cancelled(_CLOSED)
                task = asyncio.current_task()
                # A closed channel cancels its calls: an error here, unless the task was cancelled.
                if self._closed and not (task and task.cancelling()):
                    raise ended from error
                raise
            await asyncio.sleep(pause)

    def _stub(self, method: Method) -> Any:
        if self._channel is None:  # made inside the loop that it belongs to
            self._channel = self._connection.open(grpc.aio)
        return self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    async def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()


class AsyncFeedbackClient(ClientBase):
    """`serving.client.FeedbackClient` for asyncio: same arguments, same methods, awaited.

    Belongs to the event loop of its first call. Calls of several tasks share one connection.
    """

    def _open(self, connection: Connection) -> AsyncChannel:
        return AsyncChannel(connection)

    async def rank(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None,
        candidates: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
    ) -> Scores:
        """Scores one user's candidates, see `FeedbackClient.rank`."""
        request = {"context": context, "histories": histories or {}, "candidates": candidates}
        return (await self.rank_many([request], timeout=timeout))[0]

    async def rank_many(
        self, requests: Sequence[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[Scores]:
        """Scores several requests, see `FeedbackClient.rank_many`."""
        return await self._run(self._core.rank_many(requests), self._deadline(timeout))

    async def top_k(
        self,
        context: Mapping[str, Any],
        histories: Mapping[str, Any] | None = None,
        exclude: Sequence[Any] = (),
        k: int | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ranks the whole catalogue for one user, see `FeedbackClient.top_k`."""
        steps = self._core.top_k(context, histories, exclude, k)
        return await self._run(steps, self._deadline(timeout))

    async def rank_examples(
        self, records: Sequence[bytes], *, timeout: float | None = None
    ) -> list[Scores]:
        """Scores request records, see `FeedbackClient.rank_examples`."""
        return await self._run(self._core.rank_examples(records), self._deadline(timeout))

    async def schema(self, *, timeout: float | None = None) -> Schema:
        """Returns what a request holds, see `FeedbackClient.schema`."""
        return await self._run(self._core.agree(), self._deadline(timeout))

    async def metadata(self, *, timeout: float | None = None) -> ModelMetadata:
        """Returns name, version and signatures, see `FeedbackClient.metadata`."""
        return await self._run(self._core.metadata(), self._deadline(timeout))

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Returns whether the model answers now, see `FeedbackClient.ready`."""
        return await self._run(self._core.ready(), self._ready_deadline(timeout))

    async def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncFeedbackClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[Result], deadline: float) -> Result:
        """Makes the calls that the core asks for, one after the other."""
        try:
            call = next(steps)
            while True:
                try:
                    answer = await self._channel.call(
                        call.method, call.request, deadline, call.retry
                    )
                except ServingError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as done:
            return done.value


__all__ = ["AsyncFeedbackClient"]
