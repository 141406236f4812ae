"""Every benchmark runs on a tiny size, and the naive DFN is the same model as the shared one."""

import itertools
import json
import sys
import time
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from benchmarks import (
    __main__,
    dfn_training,
    input_pipeline,
    optimizer,
    prepare,
    sensitivity,
    serving,
    speed,
    study,
)
from benchmarks.dfn_training import check_equal, encoded_batch
from benchmarks.measure import Report, in_turn, interleaved_medians, paired_ratios, readable
from benchmarks.naive import naive_copy, one_candidate_a_row
from benchmarks.serving_bare import BareModel
from benchmarks.serving_floor import publish_blank
from benchmarks.serving_load import swap_report, throughputs
from benchmarks.serving_start import start_report
from benchmarks.workload import synthetic_request, synthetic_schema
from serving.tensors import from_proto
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import REQUEST
from tfrec_feedback.config import load_config
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.runs import RunError

TINY_LOG = {"num_users": 30, "num_items": 40, "num_days": 3}


@pytest.fixture(scope="module")
def models():
    schema = synthetic_schema(max_length=6)
    shared = build_model("dfn", schema, embedding_dim=8, num_heads=2)
    rng = np.random.default_rng(0)
    # Weights of order 1: fresh ones are so small that any attention would look even.
    shared.set_weights([rng.normal(0.0, 0.3, w.shape) for w in shared.get_weights()])
    return schema, shared, naive_copy(shared)


@pytest.mark.parametrize("full", [True, False])
def test_the_naive_dfn_scores_like_the_shared_one(models, full):
    schema, shared, naive = models
    encoded, labels, weights = encoded_batch(schema, 8, 5, full)
    rows, _, _ = one_candidate_a_row(encoded, labels, weights)
    expected = shared(encoded)["ctr"].numpy().reshape(-1, 1)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(naive(rows)["ctr"], expected, rtol=1e-5, atol=1e-5)


def test_the_naive_dfn_learns_like_the_shared_one(models):
    schema, shared, naive = models
    batch = encoded_batch(schema, 8, 5, full=False)
    gradients = []
    for model, inputs in ((shared, batch), (naive, one_candidate_a_row(*batch))):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, training=True)
        found = tape.gradient(loss, model.trainable_variables)
        gradients.append([loss, *map(tf.convert_to_tensor, found)])
    for of_shared, of_naive in zip(*gradients, strict=True):
        np.testing.assert_allclose(of_naive, of_shared, rtol=1e-4, atol=1e-5)


def test_forms_that_differ_are_not_timed():
    with pytest.raises(RuntimeError, match=r"differ by 0\.5"):
        check_equal(tf.constant([[1.0, 2.0]]), tf.constant([[1.0], [2.5]]))


def test_dfn_training_compares_both_forms_at_full_and_random_histories():
    report = dfn_training.run({3: 2}, history_length=4, embedding_dim=4, repeats=1)
    assert [row[:3] for row in report.rows] == [["full", 3, 2], ["random", 3, 2]]
    for row in report.rows:
        assert row[7] == pytest.approx(row[4] / row[3])


def test_input_pipeline_splits_the_loop_into_waiting_and_stepping():
    report = input_pipeline.run(TINY_LOG, batch_size=8, embedding_dim=4, steps=2, real=False)
    ((log, wait, step, share, first, rate),) = report.rows
    assert log == "simulated"
    assert share == f"{wait / (wait + step):.1%}"
    assert first > 0 and rate > 0


def test_prepare_reports_rates_and_memory():
    report = prepare.run(TINY_LOG, workers=1, training_steps=1, real=False)
    ((log, exposures, *rates, read, peak, training),) = report.rows
    assert log == "simulated" and exposures > 100
    assert all(rate > 0 for rate in rates)
    assert read <= peak < training


def test_models_are_timed_side_by_side_and_missing_logs_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("FEEDBACK_DATA", str(tmp_path))
    (timed,) = speed.run(("simulated", "kuairand-pure"), ("fm", "din"), batches=1, rounds=1)
    assert [row[0] for row in timed.rows] == ["fm", "din"]
    for column in (2, 4):
        assert "1.0" in {str(float(row[column])) for row in timed.rows}
    for row in timed.rows:
        assert len(row) == len(timed.columns)
        assert row[1] > 0
        assert row[3] > 0


def test_optimizer_compares_three_on_one_table():
    report = optimizer.run(rows=50, width=4, touched=7, repeats=1)
    assert [row[0] for row in report.rows] == ["LazyAdam", "Adagrad", "Adam"]
    assert report.rows[0][2] == 1.0


def test_serving_answers_in_every_way():
    size = (3, 2, ("click", "unclick", "dislike"))
    options = {"embedding_dim": 4, "repeats": 1, "seconds": 0.1, "rounds": 1, "swap_seconds": 0}
    latency, throughput, _ = serving.run([size], **options)
    ways = {row[1]: row for row in latency.rows}
    assert list(ways) == [
        *("bare call", "gRPC", "gRPC, on one core", "gRPC, nothing to compute"),
        *("bare call, one row a candidate", "gRPC, one row a candidate"),
    ]
    assert all(row[2] > 0 for row in latency.rows) and ways["bare call"][3] == 1.0
    assert 0 < ways["gRPC"][4] < ways["gRPC, one row a candidate"][4]
    for _, callers, bare, grpc, ratio, floor in throughput.rows:
        assert callers in (1, 4)
        assert ratio == pytest.approx(grpc / bare) and ratio > 0 and floor > 0


def test_the_bare_model_scores_as_the_server_does(tmp_path):
    size = (3, 2, ("click", "unclick", "dislike"))
    version = serving.published(tmp_path / "dfn", *size[1:], 4)
    schema, request = synthetic_schema(*size[1:]), serving.random_request(*size)
    with (
        serving.served(version) as (target, client),
        serving.served(version, "--spread", "1") as (_, narrow),
    ):
        clients = {"gRPC": client, "narrow": narrow}
        ways = serving.ways_of(BareModel(version), clients, target, schema, request)
        expected = ways["bare call"]()["ctr"]
        found, found_narrow = (ways[way]()[0]["ctr"] for way in ("gRPC", "narrow"))
        rows = from_proto(ways["gRPC, one row a candidate"]().outputs["ctr"])
        bare_rows = ways["bare call, one row a candidate"]()["ctr"]
    assert np.std(expected) > 0
    for other in (found, found_narrow, rows, bare_rows):
        np.testing.assert_allclose(other, expected[0], rtol=1e-5, atol=1e-6)


def test_a_blank_model_takes_the_same_requests_and_scores_nothing(tmp_path):
    size = (3, 2, ("click", "unclick", "dislike"))
    version = publish_blank(synthetic_schema(*size[1:]), tmp_path / "dfn")
    with serving.served(version) as (_, client):
        (found,) = client.rank_many([serving.random_request(*size)])
    assert {task: scores.tolist() for task, scores in found.items()} == {
        "ctr": [0.0, 0.0, 0.0],
        "dislike": [0.0, 0.0, 0.0],
    }


def test_cores_are_compared_at_random_moments(tmp_path):
    size = (3, 2, ("click", "unclick", "dislike"))
    version = serving.published(tmp_path / "dfn", *size[1:], 4)
    lines = serving.spreading(version, size, throughput=80.0, seconds=0.5, rounds=2)
    assert [line[:3] for line in lines] == [
        ["3, 3 x 2", rate, cores] for rate in (20.0, 40.0) for cores in ("one", "idle ones too")
    ]
    assert all(line[4] >= line[3] > 0 for line in lines)
    assert [line[5:] == [1.0, 1.0] for line in lines] == [True, False, True, False]


def test_variants_take_turns_and_none_is_favoured_by_the_order():
    seen = []
    found = in_turn({name: partial(seen.append, name) for name in "abc"}, 600)
    assert found == {name: [None] * 600 for name in "abc"}
    rounds = [seen[start : start + 3] for start in range(0, 1800, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    repeats = {name: 0 for name in "abc"}
    for before, after in itertools.pairwise(seen):
        repeats[before] += before == after
    # The last of a round is the first of the next one in a ninth of the rounds.
    assert all(45 < count < 90 for count in repeats.values())


def test_callers_take_turns_in_rounds_and_their_failures_are_raised():
    seen = []
    ways = {"a": lambda: seen.append("a") or time.sleep(0.01), "b": lambda: time.sleep(0.02)}
    found = throughputs(ways, callers=2, seconds=0.1, rounds=3)
    assert set(found) == {"a", "b"} and all(len(rates) == 3 for rates in found.values())
    assert len(seen) >= 6 and all(rate > 0 for rates in found.values() for rate in rates)
    with pytest.raises(ZeroDivisionError):
        throughputs({"a": lambda: 1 / 0}, callers=2, seconds=0.1, rounds=1)


@pytest.mark.parametrize("loads", [1, 3])
def test_a_swap_is_reported_beside_the_steady_load(tmp_path, loads):
    (tmp_path / "1").mkdir()
    with FakeServer(base=tmp_path, swap_delay=0.5) as server:
        report = swap_report(server.target, "tiny", [REQUEST], tmp_path / "1", 40.0, 3.0, loads)
    assert len(list(tmp_path.iterdir())) == 1 + loads
    assert [row[0] for row in report.rows] == ["before", "during", "after"]
    assert all(row[1] > 0 for row in report.rows) and report.rows[0][4:] == [1.0, 1.0, 1.0]
    for _, _, _, p99, middle, lowest, highest in report.rows:
        assert 0 < lowest <= middle <= highest
        if loads == 1:
            assert lowest == middle == highest == pytest.approx(p99 / report.rows[0][3])
    assert "0 calls failed, 0 scores were wrong" in report.notes[0]


def test_a_client_is_timed_from_its_import_to_its_first_request():
    report = start_report(repeats=1, compared=False)
    ((name, seconds, ratio),) = report.rows
    assert (name, ratio) == ("serving.client", 1.0)
    assert 0 < seconds < 60


def test_rows_repeat_the_user_and_not_the_candidates():
    schema = synthetic_schema(max_length=4)
    lengths = {"click": 2, "unclick": 1, "dislike": 0}
    request = synthetic_request(np.random.default_rng(0), 3, lengths)
    rows = serving.rows_of(schema, encode_requests(schema, [request]))
    assert rows["item_id"].tolist() == request["candidates"]["item_id"]
    assert rows["user_id"].tolist() == 3 * [request["context"]["user_id"]]
    assert rows["click_item_id"].tolist() == 3 * [request["histories"]["click"]["item_id"]]


def test_variants_are_timed_as_often_as_asked_after_warming_up():
    calls = []
    names = {name: partial(calls.append, name) for name in "ab"}
    interleaved_medians(names, repeats=3, warmup=2)
    assert calls[:4] == ["a", "a", "b", "b"]
    assert sorted(calls[4:]) == ["a", "a", "a", "b", "b", "b"]


def test_a_gain_is_the_median_of_the_rounds_own_ratios():
    # Rounds of 2x, 4x and 3x; the machine was ten times slower in the second.
    assert paired_ratios([2.0, 40.0, 3.0], [1.0, 10.0, 1.0]) == (2.5, 3.0, 3.5)


def test_numbers_are_written_with_three_digits():
    values = [1234.5, 99.96, 0.01234, 1200, "x"]
    assert [readable(value) for value in values] == ["1,230", "100", "0.0123", "1,200", "x"]


def test_the_command_writes_json(tmp_path, monkeypatch):
    monkeypatch.setattr(optimizer, "run", lambda: Report("title", ["a"], [[1.5]]))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "optimizer", "--json", str(tmp_path / "x")])
    __main__.main()
    written = json.loads((tmp_path / "x").read_text())
    assert written == {
        "optimizer": {"title": "title", "columns": ["a"], "rows": [[1.5]], "notes": []}
    }


def test_the_command_refuses_unknown_names(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "optimiser"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "unknown benchmark 'optimiser'" in capsys.readouterr().err


TINY_MEMORY = ["model.embedding_dim=4", "model.deep_units=[8]", "data.batch_size=64"]
TINY_MEMORY += ["train.epochs=1", "train.snapshots=0", "model.user_memory={controller_units=8}"]
TINY_MEMORY += ["model.histories=['click']"]


def test_sensitivity_trains_every_size_once(tiny_data, tmp_path, capsys):
    options = {"data": tiny_data.directory, "output": tmp_path, "set": TINY_MEMORY}
    grid = tmp_path / tiny_data.directory.name
    sensitivity.main(model="dumn_no_tl", sizes="4", words="2, 3", seeds=1, config=None, **options)
    first = capsys.readouterr().out
    runs = [grid / f"dumn_no_tl-4x{width}-0" for width in (2, 3)]
    found = [json.loads((run / "evaluation.json").read_text()) for run in runs]
    aucs = [report["tasks"]["ctr"]["auc"]["value"] for report in found]
    assert (grid / "table.md").read_text() == (
        f"| click AUC | M = 4 |\n|---|---|\n| W = 2 | {aucs[0]:.4f} |\n| W = 3 | {aucs[1]:.4f} |\n"
    )
    assert f"pipelines.visualize --grid {grid}" in first
    # A second time nothing is trained: finished runs may not be trained again.
    sensitivity.main(model="dumn_no_tl", sizes="4", words="2,3", seeds=1, config=None, **options)
    assert capsys.readouterr().out.endswith(first[first.index("| click AUC") :])


def test_a_study_takes_no_finished_run_of_other_settings_or_data(tiny_data, tiny_run, tmp_path):
    config = load_config(tiny_run / "config.toml")
    assert study.is_finished(tiny_run, config, tiny_data)
    assert not study.is_finished(tmp_path, config, tiny_data)
    moved = load_config(tiny_run / "config.toml", [f"data.directory='{tmp_path}'"])
    assert study.is_finished(tiny_run, moved, tiny_data)
    others = ["train.epochs=9", "model.dislike_weight=2"]
    other = load_config(tiny_run / "config.toml", others)
    expected = (
        r"model.dislike_weight None, train.epochs 1; asked for now: model.dislike_weight 2, "
        r"train.epochs 9. Choose another --output"
    )
    with pytest.raises(RunError, match=expected):
        study.report_of_run(tiny_run, other, Console())
    data = tiny_data.model_copy(update={"fingerprint": "another"})
    with pytest.raises(RunError, match="data_fingerprint .*; asked for now: .* another"):
        study.is_finished(tiny_run, config, data)


def test_a_setting_that_is_newer_than_a_finished_run_counts_as_the_default(
    tiny_data, tiny_run, tmp_path
):
    described = json.loads((tiny_run / "run.json").read_text(encoding="utf-8"))
    del described["config"]["train"]["steps_at_once"], described["config"]["loss"]
    (tmp_path / "run.json").write_text(json.dumps(described), encoding="utf-8")
    assert study.is_finished(tmp_path, load_config(tiny_run / "config.toml"), tiny_data)
    newer = load_config(tiny_run / "config.toml", ["loss.name=tce"])
    with pytest.raises(RunError, match="loss.name ce; asked for now: loss.name tce"):
        study.is_finished(tmp_path, newer, tiny_data)


def test_sensitivity_changes_sizes_and_no_other_option():
    config = load_config(overrides=["model.user_memory={key_strength='learned'}"])
    resized = sensitivity.resized(config, 16, 32)
    memory = {"key_strength": "learned", "memory_size": 16, "word_size": 32}
    assert resized.model.params() == {"user_memory": memory}
    assert resized.model_copy(update={"model": config.model}) == config


def test_a_table_of_sizes_has_the_mean_and_deviation_over_seeds():
    values = {(16, 8): [0.5, 0.7], (32, 8): [0.25]}
    assert sensitivity.markdown(values).splitlines() == [
        "| click AUC | M = 16 | M = 32 |",
        "|---|---|---|",
        "| W = 8 | 0.6000 ± 0.1000 | 0.2500 |",
    ]


def test_sizes_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="--words: expected numbers such as 16,64,256"):
        sensitivity._numbers("--words", "16,many")
