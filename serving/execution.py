"""Runs signatures piece by piece, so that a deadline or a cancelled call ends a run early.

A piece that ranks candidates is spread over the cores that no other run needs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from functools import partial

import numpy as np

from serving.calls import Call
from serving.chunks import ChunkPlan, Piece, join
from serving.cores import Cores, usable_cores
from serving.loader import LoadedModel
from serving.steps import Steps
from serving.validation import InvalidRequest

Inputs = Mapping[str, np.ndarray]
Scores = dict[str, np.ndarray]
Graph = Callable[[Inputs, float | None], Scores]
"""Runs a signature on its inputs, for so many seconds at most."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of one request.

    Attributes:
        chunk_rows: candidates that are run at once; more are run one piece after the other.
        max_candidates: candidates, counting padding, of a request.
        spread: cores that a run may use while no other run needs them; 0: all; 1: never but one.
    """

    chunk_rows: int = 1024
    max_candidates: int = 100_000
    spread: int = 0


class Executor:
    """Runs the signatures of models that it is handed.

    Args:
        limits: bounds of one request.
        observe: told, after each run of a graph, the model's name, the call's and the seconds.
        steps: runs each run of a graph.
    """

    def __init__(
        self,
        limits: Limits,
        observe: Callable[[str, str, float], None],
        steps: Steps = Steps(),
    ):
        self._limits = limits
        self._observe = observe
        self._steps = steps
        cores = usable_cores()
        self._most = min(cores, limits.spread or cores)
        self._cores = Cores(cores)
        self._helpers = futures.ThreadPoolExecutor(cores, thread_name_prefix="spread")

    def run(self, model: LoadedModel, name: str, inputs: Inputs, call: Call, api: str) -> Scores:
        """Runs a signature, in pieces where it can be cut.

        Args:
            model: what to run.
            name: of the signature.
            inputs: an array for every input of it.
            call: ends the run between two pieces.
            api: the call's name, for `observe`.

        Returns:
            Every output, by name.

        Raises:
            InvalidRequest: for more candidates than the limit.
            Rejected: when nobody waits any more.
            tf.errors.OpError: when the graph refuses the values, or takes too long.
        """
        plan = model.plans.get(name)

        def graph(some: Inputs, seconds: float | None) -> Scores:
            start = time.perf_counter()
            try:
                return self._steps.run(partial(model.run, name, some, seconds))
            finally:
                self._observe(model.name, api, time.perf_counter() - start)

        if plan is None:
            with self._cores.taken(1):
                return graph(inputs, call.seconds())
        rows, width = plan.size(inputs)
        # Requests without candidates count too: each has a user whose side is computed.
        size = rows * max(1, width)
        if size > self._limits.max_candidates:
            raise InvalidRequest(
                f"{rows} requests of {width} candidates are more than the "
                f"{self._limits.max_candidates} this server takes at once; send several calls."
            )
        pieces = plan.pieces(inputs, self._limits.chunk_rows)
        if plan.candidates:
            return self._run_candidates(graph, plan, inputs, call, pieces)
        with self._cores.taken(1):
            return self._run_rows(graph, plan, inputs, call, pieces)

    def _run_candidates(
        self, graph: Graph, plan: ChunkPlan, inputs: Inputs, call: Call, pieces: Sequence[Piece]
    ) -> Scores:
        """Runs some candidates at a time, on idle cores beside each other.

        No deadline stops a run from inside: how long one of so many candidates takes is known.
        """
        whole: Scores = {}
        for piece in pieces:
            if len(pieces) > 1:
                call.check()
            with self._cores.taken(min(self._most, plan.most_parts(piece))) as cores:
                parts = plan.parts(piece, cores)
                if len(parts) == len(pieces) == 1:
                    return graph(inputs, None)
                found = self._beside(graph, [plan.cut(inputs, *part) for part in parts])
            for part, scores in zip(parts, found, strict=True):
                for output, values in scores.items():
                    whole.setdefault(output, np.empty(plan.size(inputs), values.dtype))
                    whole[output][part] = values
        return whole

    def _beside(self, graph: Graph, parts: Sequence[Inputs]) -> list[Scores]:
        """Runs parts beside each other, one of them on this thread."""
        others = [self._helpers.submit(graph, part, None) for part in parts[1:]]
        try:
            first = graph(parts[0], None)
        finally:
            futures.wait(others)  # the model may be freed once this call has ended
        return [first, *(other.result() for other in others)]

    def _run_rows(
        self, graph: Graph, plan: ChunkPlan, inputs: Inputs, call: Call, pieces: Sequence[Piece]
    ) -> Scores:
        """Runs some rows at a time; a deadline stops each run from inside, too."""
        if len(pieces) == 1:
            return graph(inputs, call.seconds())
        found = []
        for piece in pieces:
            call.check()
            found.append(graph(plan.cut(inputs, *piece), call.seconds()))
        return {output: join([scores[output] for scores in found]) for output in found[0]}
