"""Runs signatures piece by piece, so that a deadline or a cancelled call ends a run early."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from serving.calls import Call
from serving.chunks import join
from serving.loader import LoadedModel
from serving.validation import InvalidRequest


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of one request.

    Attributes:
        chunk_rows: candidates that are run at once; more are run one piece after the other.
        max_candidates: candidates, counting padding, of a request.
    """

    chunk_rows: int = 1024
    max_candidates: int = 100_000


class Executor:
    """Runs the signatures of models that it is handed.

    Args:
        limits: bounds of one request.
        observe: told, after each run of a graph, the model's name, the call's and the seconds.
    """

    def __init__(self, limits: Limits, observe: Callable[[str, str, float], None]):
        self._limits = limits
        self._observe = observe

    def run(
        self, model: LoadedModel, name: str, inputs: Mapping[str, np.ndarray], call: Call, api: str
    ) -> dict[str, np.ndarray]:
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
        if plan is None:
            return self._timed(model, name, inputs, call.seconds(), api)
        rows, width = plan.size(inputs)
        # Requests without candidates count too: each has a user whose side is computed.
        size = rows * max(1, width)
        if size > self._limits.max_candidates:
            raise InvalidRequest(
                f"{rows} requests of {width} candidates are more than the "
                f"{self._limits.max_candidates} this server takes at once; send several calls."
            )
        pieces = plan.pieces(inputs, self._limits.chunk_rows)
        if len(pieces) == 1:
            # How long a row may take is not known as it is of a candidate: see `_run_rows`.
            seconds = None if plan.candidates else call.seconds()
            return self._timed(model, name, inputs, seconds, api)
        if not plan.candidates:
            return self._run_rows(model, name, inputs, call, api, [part for part, _ in pieces])
        whole: dict[str, np.ndarray] = {}
        for part, candidates in pieces:
            call.check()
            scores = self._timed(model, name, plan.cut(inputs, part, candidates), None, api)
            for output, values in scores.items():
                whole.setdefault(output, np.empty((rows, width), values.dtype))
                whole[output][part, candidates] = values
        return whole

    def _run_rows(
        self,
        model: LoadedModel,
        name: str,
        inputs: Mapping[str, np.ndarray],
        call: Call,
        api: str,
        parts: Sequence[slice],
    ) -> dict[str, np.ndarray]:
        """Runs some rows at a time; a deadline stops each run from inside, too."""
        plan, found = model.plans[name], []
        for part in parts:
            call.check()
            cut = plan.cut(inputs, part, slice(0, 1))
            found.append(self._timed(model, name, cut, call.seconds(), api))
        return {output: join([scores[output] for scores in found]) for output in found[0]}

    def _timed(
        self,
        model: LoadedModel,
        name: str,
        inputs: Mapping[str, np.ndarray],
        seconds: float | None,
        api: str,
    ) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        try:
            return model.run(name, inputs, seconds)
        finally:
            self._observe(model.name, api, time.perf_counter() - start)
