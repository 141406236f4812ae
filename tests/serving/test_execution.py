import threading
import time

import numpy as np
import pytest

from benchmarks.serving_model import publish_small_model, small_schema
from benchmarks.workload import random_lengths, synthetic_request
from serving.calls import UNBOUNDED, Call, Rejected
from serving.chunks import ChunkPlan
from serving.execution import Executor, Limits
from serving.loader import LoadedModel
from tfrec_feedback.requests import encode_requests

LONGEST = 60.0


class Model:
    """Scores each candidate by its item_id; remembers how wide each run was, and on what thread."""

    name = "model"

    def __init__(self):
        self.plans = {"rank": ChunkPlan(frozenset({"item_id"}))}
        self.runs = []
        self.running = 0
        self.started = threading.Semaphore(0)
        self.held = None

    def run(self, signature, inputs, seconds):
        self.runs.append((inputs["item_id"].shape, threading.current_thread()))
        self.running += 1
        self.started.release()
        if self.held is not None:
            assert self.held.wait(LONGEST)
        if (inputs["item_id"] < 0).any():
            self.running -= 1
            raise ValueError("no such item")
        time.sleep(0.01)
        self.running -= 1
        return {"ctr": inputs["item_id"] + inputs["user_id"][:, None]}

    def shapes(self):
        return sorted(shape for shape, _ in self.runs)


def batch(rows, width):
    ids = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    counts = np.full(rows, width)
    return {"user_id": 1e6 * np.arange(rows), "item_id": ids, "num_candidates": counts}


def executor(monkeypatch, cores=2, **limits):
    monkeypatch.setattr("serving.execution.usable_cores", lambda: cores)
    observed = []
    made = Executor(Limits(**limits), lambda *args: observed.append(args))
    return made, observed


def check(found, inputs):
    wanted = inputs["item_id"] + inputs["user_id"][:, None]
    np.testing.assert_array_equal(found["ctr"], wanted)


@pytest.mark.parametrize(
    ("cores", "rows", "width", "runs"),
    [
        (2, 1, 100, [(1, 100)]),
        (2, 1, 479, [(1, 479)]),
        (2, 1, 500, [(1, 240), (1, 260)]),
        (1, 1, 500, [(1, 500)]),
        (8, 1, 1000, [(1, 240), (1, 240), (1, 256), (1, 264)]),
        (2, 40, 10, [(16, 10), (24, 10)]),
        (2, 20, 30, [(20, 30)]),
        (2, 1, 0, [(1, 0)]),
        (2, 0, 500, [(0, 500)]),
        # A piece of 1,024 candidates, and one of 76.
        (2, 1, 1100, [(1, 76), (1, 512), (1, 512)]),
    ],
)
def test_a_run_alone_spreads_over_all_cores(cores, rows, width, runs, monkeypatch):
    run, observed = executor(monkeypatch, cores)
    model, inputs = Model(), batch(rows, width)
    check(run.run(model, "rank", inputs, UNBOUNDED, "Predict"), inputs)
    assert model.shapes() == runs
    assert [entry[:2] for entry in observed] == [("model", "Predict")] * len(runs)
    assert model.runs[0][1] is threading.current_thread() or len(runs) > 1


def test_runs_that_are_no_ranking_take_a_core_too(monkeypatch):
    run, _ = executor(monkeypatch)
    slow, quick, inputs = Model(), Model(), batch(1, 500)
    slow.plans = {}
    slow.held = threading.Event()
    thread = threading.Thread(target=run.run, args=(slow, "any", inputs, UNBOUNDED, "Predict"))
    thread.start()
    try:
        assert slow.started.acquire(timeout=LONGEST)
        check(run.run(quick, "rank", inputs, UNBOUNDED, "Predict"), inputs)
        assert quick.shapes() == [(1, 500)]
    finally:
        slow.held.set()
        thread.join()


def test_spread_bounds_the_cores_of_a_run(monkeypatch):
    for spread, parts in ((0, 4), (1, 1), (2, 2), (3, 3), (9, 4)):
        model, inputs = Model(), batch(1, 1000)
        run, _ = executor(monkeypatch, 4, spread=spread)
        check(run.run(model, "rank", inputs, UNBOUNDED, "Predict"), inputs)
        assert len(model.runs) == parts


def test_runs_beside_others_stay_on_their_core(monkeypatch):
    run, _ = executor(monkeypatch)
    slow, quick, inputs = Model(), Model(), batch(1, 500)
    slow.held = threading.Event()
    thread = threading.Thread(target=run.run, args=(slow, "rank", inputs, UNBOUNDED, "Predict"))
    thread.start()
    try:
        # It came alone, and has both cores.
        assert slow.started.acquire(timeout=LONGEST) and slow.started.acquire(timeout=LONGEST)
        check(run.run(quick, "rank", inputs, UNBOUNDED, "Predict"), inputs)
        assert quick.shapes() == [(1, 500)]
    finally:
        slow.held.set()
        thread.join()
    check(run.run(quick, "rank", inputs, UNBOUNDED, "Predict"), inputs)
    assert quick.shapes()[0] == (1, 240)


@pytest.mark.parametrize("bad", [0, 499])
def test_a_part_that_fails_ends_the_call_once_no_part_runs_any_more(bad, monkeypatch):
    run, _ = executor(monkeypatch)
    model, inputs = Model(), batch(1, 500)
    inputs["item_id"][0, bad] = -1
    for _ in range(3):  # the cores come back every time
        with pytest.raises(ValueError, match="no such item"):
            run.run(model, "rank", inputs, UNBOUNDED, "Predict")
        assert model.running == 0  # the model may be freed now
    assert len(model.runs) == 6


def test_a_caller_who_has_gone_is_noticed_between_pieces(monkeypatch):
    class Gone:
        def time_remaining(self):
            return None

        def is_active(self):
            return len(model.runs) < 2

    run, _ = executor(monkeypatch)
    model = Model()
    with pytest.raises(Rejected, match="gone"):
        run.run(model, "rank", batch(1, 5000), Call(Gone()), "Predict")
    assert model.shapes() == [(1, 512), (1, 512)]


@pytest.mark.parametrize(
    ("rows", "width", "runs"), [(1, 1000, {1: 1, 2: 2, 3: 3}), (32, 21, {1: 1, 2: 2})]
)
def test_scores_of_a_network_are_the_same_to_the_last_bit_on_any_number_of_cores(
    rows, width, runs, tmp_path, monkeypatch
):
    model = LoadedModel("dfn", publish_small_model(tmp_path))
    rng = np.random.default_rng(0)
    requests = [
        synthetic_request(rng, width, random_lengths(rng, 10, full=False)) for _ in range(rows)
    ]
    inputs, found = encode_requests(small_schema(), requests), []
    for cores, count in runs.items():
        run, observed = executor(monkeypatch, cores)
        found.append(run.run(model, "serving_default", inputs, UNBOUNDED, "Predict"))
        assert len(observed) == count
    model.close()
    for scores in found[1:]:
        for task, values in scores.items():
            np.testing.assert_array_equal(values, found[0][task])
