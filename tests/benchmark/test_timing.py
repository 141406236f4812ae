import itertools
import math

import pytest
import tensorflow as tf

from tfrec_feedback.benchmark import timing
from tfrec_feedback.benchmark.cells import Timing
from tfrec_feedback.benchmark.timing import (
    interleaved_medians,
    load_timings,
    request_of,
    save_timings,
    time_models,
)
from tfrec_feedback.config import load_config
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.losses import Truncated


def test_calls_take_turns_in_reversed_order_every_other_round():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    interleaved_medians(calls, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]


def test_the_median_of_the_rounds_is_taken(monkeypatch):
    # One call a round, from an even to an odd reading: 1, 9 and 2 seconds.
    readings = iter([0.0, 1.0, 10.0, 19.0, 20.0, 22.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(readings))
    assert interleaved_medians({"a": lambda: None}, rounds=3) == {"a": 2.0}


def test_timings_are_read_as_they_were_written(tmp_path):
    timings = {"fm": Timing(1000.0, 2.5), "dfn, no click": Timing(10.0, 30.0)}
    save_timings(tmp_path / "timings.json", timings)
    assert load_timings(tmp_path / "timings.json") == timings
    assert load_timings(tmp_path / "none.json") == {}
    save_timings(tmp_path / "timings.json", {"din": Timing(math.nan, 2.5)})
    assert "null" in (tmp_path / "timings.json").read_text(encoding="utf-8")
    found = load_timings(tmp_path / "timings.json")["din"]
    assert math.isnan(found.samples_per_second)
    assert found.latency_ms == 2.5


def test_the_timed_request_is_a_logged_one_of_long_histories_with_repeated_candidates(tiny_data):
    schema = tiny_data.schema()

    def events(features):
        return sum(int(features[history.length][0]) for history in schema.histories)

    def candidates(features):
        own = int(features["num_candidates"][0])
        return list(itertools.islice(itertools.cycle(features["item_id"].numpy()[0, :own]), 100))

    logged = [batch[0] for batch in request_dataset(tiny_data, "test", 1)]
    request = request_of(tiny_data, 100)
    first = next(iter(request_dataset(tiny_data, "test", 1024)))[0]  # requests of a like size
    most = sum(first[history.length] for history in schema.histories).numpy().max()
    assert set(request) == {spec.name for spec in schema.inputs()}
    assert request["num_candidates"].numpy().tolist() == [100]
    assert request["item_tags"].shape[:2] == (1, 100)
    assert events(request) == most
    longest = [candidates(features) for features in logged if events(features) == most]
    assert request["item_id"].numpy()[0].tolist() in longest


SMALL_DIN = ["model.name=din", "model.embedding_dim=4", "model.deep_units=[8]"]


def test_the_timed_step_has_the_loss_of_the_run(tiny_data):
    overrides = ["loss.name=tce", "loss.max_rate=0.3", "loss.num_steps=10"]
    model = timing._model(load_config(overrides=[*SMALL_DIN, *overrides]), tiny_data)
    assert isinstance(model.click_loss, Truncated)
    assert model.click_loss.schedule.max_rate == 0.3
    assert model.denoising_monitor is not None
    plain = load_config(overrides=[*SMALL_DIN, "train.diagnostics_steps=0"])
    model = timing._model(plain, tiny_data)
    assert not isinstance(model.click_loss, Truncated)
    assert model.denoising_monitor is None


@pytest.mark.parametrize(
    ("overrides", "compiles"),
    [
        (["train.diagnostics_steps=0"], False),
        (["train.diagnostics_steps=0", "train.compiled=true"], True),
        (["train.compiled=true"], False),  # The data know false clicks: diagnostics are plain.
    ],
)
def test_the_timed_step_is_compiled_where_the_run_s_is(tiny_data, overrides, compiles):
    model = timing._model(load_config(overrides=[*SMALL_DIN, *overrides]), tiny_data)
    assert model.compiles == compiles


def test_steps_that_are_one_program_are_not_timed_one_by_one(tiny_data, monkeypatch):
    several = ["train.compiled=true", "train.diagnostics_steps=0", "train.steps_at_once=2"]
    timed = []

    def fake_medians(calls, rounds):
        timed.append(list(calls))
        return dict.fromkeys(calls, 2.0)

    monkeypatch.setattr(timing, "interleaved_medians", fake_medians)
    configs = {
        "plain": load_config(overrides=SMALL_DIN),
        "several": load_config(overrides=[*SMALL_DIN, *several]),
    }
    found = time_models(configs, tiny_data, batches=1, rounds=1)
    assert timed == [["plain"], ["plain", "several"]]
    assert found["plain"].samples_per_second > 0
    assert math.isnan(found["several"].samples_per_second)
    assert found["several"].latency_ms == 2000.0


def test_training_counts_candidates_and_both_speeds_are_measured(tiny_data, monkeypatch):
    config = load_config(
        overrides=[
            "model.name=dfn_no_feedback",
            "model.embedding_dim=4",
            "model.deep_units=[8]",
            "data.batch_size=32",
        ]
    )
    # A step takes 2 s, a request 0.5 s.
    seconds = iter([2.0, 0.5])
    called = []

    def fake_medians(calls, rounds):
        for call in calls.values():
            call()
        called.append(rounds)
        return dict.fromkeys(calls, next(seconds))

    monkeypatch.setattr(timing, "interleaved_medians", fake_medians)
    found = time_models({"row": config}, tiny_data, batches=2, rounds=3)
    batches = request_dataset(tiny_data, "train", 32).take(2)
    candidates = sum(int(tf.reduce_sum(batch[0]["num_candidates"])) for batch in batches)
    assert found["row"].samples_per_second == pytest.approx(candidates / 2.0)
    assert found["row"].latency_ms == pytest.approx(500.0)
    assert called[0] == 3
