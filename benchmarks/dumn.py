"""DUMN: training against its ablations and DFN, requests of many candidates, and memory."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.logs import in_own_process
from benchmarks.measure import Report, interleaved_seconds, paired_ratios, peak_megabytes
from benchmarks.workload import (
    KUAIRAND_LENGTHS,
    NUM_SAMPLES,
    any_size,
    request_tensors,
    synthetic_schema,
    training_batch,
    user_a_candidate,
)
from tfrec_feedback.models import build_model
from tfrec_feedback.optimizers import LazyAdam
from tfrec_feedback.schema import Schema

MODELS = ("dumn", "dumn_no_tl", "dumn_no_umn", "dfn")
_REQUESTS = {1: 128, 10: 64}
_TOLERANCE = 1e-4
_TURNS = 8
_SPREAD = 30.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Widths of the networks; the defaults are those of the papers.

    Attributes:
        history_length: T.
        embedding_dim: of a field of DUMN; a behaviour is three fields wide.
        dfn_dim: of a field of DFN.
        memory: memory options of DUMN.
    """

    history_length: int = 100
    embedding_dim: int = 16
    dfn_dim: int = 64
    memory: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"memory_size": 256, "word_size": 64, "controller_units": 512}
    )

    def schema(self) -> Schema:
        return synthetic_schema(self.history_length, tuple(KUAIRAND_LENGTHS), NUM_SAMPLES)

    def model(self, name: str) -> Any:
        """Builds a model whose attention is not even: fresh embeddings are all but zero."""
        params: dict[str, Any] = {"embedding_dim": self.embedding_dim}
        if name == "dfn":
            params = {"embedding_dim": self.dfn_dim}
        elif name != "dumn_no_umn":
            params["user_memory"] = dict(self.memory)
        model: Any = build_model(name, self.schema(), **params)
        model.embedding.embeddings.assign(model.embedding.embeddings * _SPREAD)
        return model


def run(
    sizes: Sizes | None = None,
    requests: dict[int, int] | None = None,
    candidates: tuple[int, ...] = (1, 10, 50, 100),
    repeats: int = 7,
) -> list[Report]:
    """Measures training, requests and memory.

    Args:
        sizes: of the networks.
        requests: requests of a training batch, by candidates a request.
        candidates: N of the scored requests.
        repeats: timed steps a model; requests are repeated three times as often.

    Raises:
        RuntimeError: when a request's candidates score differently together and alone.
    """
    sizes, batches = sizes or Sizes(), requests or _REQUESTS
    return [
        _training(sizes, batches, repeats),
        _requests(sizes, candidates, 3 * repeats),
        _footprint(sizes, batches),
    ]


def _training(sizes: Sizes, batches: dict[int, int], repeats: int) -> Report:
    report = Report(
        f"DUMN training step, T = {sizes.history_length}, E = {sizes.embedding_dim} a field, "
        "one candidate = one sample",
        ["histories", "N", "requests", "model", "ms", "samples/s", "time / dumn", "quartiles"],
        notes=[
            "Forward, backward, LazyAdam and the write. Time over dumn's of the same round: "
            f"median and quartiles. DFN has d = {sizes.dfn_dim}."
        ],
    )
    example = training_batch(sizes.schema(), 2, 2, full=True)
    steps = {name: _step(sizes.model(name), example) for name in MODELS}
    for full in (True, False):
        for num_candidates, count in batches.items():
            batch = training_batch(sizes.schema(), count, num_candidates, full)
            calls = {name: functools.partial(step, batch) for name, step in steps.items()}
            seconds = interleaved_seconds(calls, repeats)
            for name in MODELS:
                median = statistics.median(seconds[name])
                low, ratio, high = paired_ratios(seconds[name], seconds["dumn"])
                report.rows.append(
                    [
                        *("full" if full else "KuaiRand", num_candidates, count, name),
                        *(1e3 * median, count * num_candidates / median),
                        *(ratio, f"{low:.2f} to {high:.2f}"),
                    ]
                )
    return report


def _step(model: Any, example: Any) -> Callable[[Any], None]:
    model.compile(LazyAdam())
    step = tf.function(model.train_step, input_signature=[any_size(example)])
    return lambda batch: step(batch)["loss"].numpy()


def _requests(sizes: Sizes, candidates: tuple[int, ...], repeats: int) -> Report:
    report = Report(
        f"One request to DUMN, T = {sizes.history_length}, E = {sizes.embedding_dim} a field",
        [
            *("histories", "N", "shared ms", "naive ms", "shared /s", "naive /s", "gain"),
            *("quartiles", "gain a call"),
        ],
        notes=[
            "Raw features to logits of the whole network. Naive: one request a candidate, each "
            "with the user's histories. Gain: naive over shared time of the same round. "
            f"{_TURNS} requests one after the other inside the graph, so that the time Python "
            "takes to call it, which a server in C++ does not have, counts once in "
            f"{_TURNS}. Gain a call: the same with a call from Python a request. /s: candidates a "
            "second."
        ],
    )
    model, schema = sizes.model("dumn"), sizes.schema()
    example = request_tensors(np.random.default_rng(0), schema, 2, 2, full=True)
    example = {spec.name: example[spec.name] for spec in schema.inputs()}
    score = tf.function(
        lambda features: model(features, training=False)["ctr"],
        input_signature=[any_size(example)],
    )
    in_turn = _in_turn(score, any_size(example))
    for full in (True, False):
        for count in candidates:
            rng = np.random.default_rng(count)
            requests = request_tensors(rng, schema, _TURNS, count, full)
            shared = [{name: requests[name][i : i + 1] for name in example} for i in range(_TURNS)]
            naive = [user_a_candidate(request, schema) for request in shared]
            check_equal(score(shared[0]), score(naive[0]))
            joined = [
                {name: tf.concat([part[name] for part in parts], axis=0) for name in example}
                for parts in (shared, naive)
            ]
            calls = {
                "shared": lambda x=joined[0]: in_turn(x, 1).numpy(),
                "naive": lambda x=joined[1], count=count: in_turn(x, count).numpy(),
                "shared call": lambda x=shared[0]: score(x).numpy(),
                "naive call": lambda x=naive[0]: score(x).numpy(),
            }
            seconds = interleaved_seconds(calls, repeats)
            times = [statistics.median(seconds[name]) / _TURNS for name in ("shared", "naive")]
            low, gain, high = paired_ratios(seconds["naive"], seconds["shared"])
            a_call = paired_ratios(seconds["naive call"], seconds["shared call"])[1]
            report.rows.append(
                [
                    *("full" if full else "KuaiRand", count, *(1e3 * time for time in times)),
                    *(count / time for time in times),
                    *(gain, f"{low:.2f} to {high:.2f}", a_call),
                ]
            )
    return report


def _in_turn(score: Any, signature: dict[str, tf.TensorSpec]) -> Any:
    """Returns a graph that scores requests of some rows each, one request after the other."""

    @tf.function(input_signature=[signature, tf.TensorSpec([], tf.int32)])
    def run(features: dict[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        def one(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            request = {name: x[start : start + rows] for name, x in features.items()}
            return start + rows, total + tf.reduce_sum(score(request))

        end = tf.shape(features["num_candidates"])[0]
        loop = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(lambda start, _: start < end, one, loop, parallel_iterations=1)[1]

    return run


def check_equal(shared: tf.Tensor, naive: tf.Tensor) -> None:
    """Raises when a request's candidates score differently together, `[1, N]`, and alone."""
    difference = float(tf.reduce_max(tf.abs(tf.transpose(shared) - naive)))
    if not difference <= _TOLERANCE:
        raise RuntimeError(
            f"Candidates score differently together and alone, by {difference:.2g} in a logit; "
            f"expected at most {_TOLERANCE}. Timing them would compare different models."
        )


def _footprint(sizes: Sizes, batches: dict[int, int]) -> Report:
    num_candidates, count = next(iter(batches.items()))
    report = Report(
        f"Memory of training DUMN, {count} requests of {num_candidates}",
        ["model", "embeddings", "other weights", "memories", "optimiser", "MB peak", "MB of step"],
        notes=[
            "Numbers in float32; the optimiser's are two moments a weight. MB: peak of a process "
            "that took two steps, and how much it rose by them; the code of TensorFlow included."
        ],
    )
    for name in ("dumn", "dumn_no_umn"):
        report.rows.append([name, *in_own_process(footprint, name, sizes, count, num_candidates)])
    return report


def footprint(name: str, sizes: Sizes, count: int, num_candidates: int) -> list[Any]:
    """Counts a model's numbers and the peak memory of this process; call it `in_own_process`.

    Args:
        name: of the model.
        sizes: of the network.
        count: R.
        num_candidates: N.

    Returns:
        Embeddings, other weights, memory state, optimiser state; megabytes at the peak, and what
        the steps added.
    """
    model = sizes.model(name)
    batch = training_batch(sizes.schema(), count, num_candidates, full=True)
    step = _step(model, batch)
    before = peak_megabytes()
    for _ in range(2):
        step(batch)

    def size(variables: Any) -> int:
        return sum(int(np.prod(variable.shape)) for variable in variables)

    embeddings = size([model.embedding.embeddings])
    slots = size(model.optimizer.variables) - 1  # Less the step counter.
    peak = peak_megabytes()
    trainable, state = size(model.trainable_variables), size(model.non_trainable_variables)
    return [embeddings, trainable - embeddings, state, slots, peak, peak - before]
