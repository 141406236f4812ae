"""The studies of denoising and the recommenders' benchmark, on tiny sizes."""

from functools import partial

import numpy as np
import pytest
import typer
from rich.console import Console

from benchmarks import denoising, denoising_quality, denoising_truth, recommenders
from benchmarks.loss_study import LossStudy, Setting
from tests.data.logs import prepared_simulation
from tests.data.ratings import write_ratings
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.denoising.record import DenoisingRecord
from tfrec_feedback.evaluation import predict, ranking_metrics
from tfrec_feedback.models import build_model
from tfrec_feedback.runs import RunError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ratings")
    source = load_interaction_source("adt-ratings", write_ratings(folder / "log"))
    return prepare_interactions(source, folder / "data")


def study_of(manifest, folder):
    (folder / "shared.toml").write_text("[train]\nepochs = 1\n[data]\nbatch_size = 64\n")
    overrides = [f"data.directory={manifest.directory}", "model.name=gmf", "model.embedding_dim=2"]
    return LossStudy(manifest, folder / "shared.toml", overrides, folder / "gmf", Console())


def test_the_best_setting_of_each_loss_is_chosen_and_finished_runs_are_kept(
    manifest, tmp_path, monkeypatch
):
    study = study_of(manifest, tmp_path)
    values = {"ce": 0.2, "rce-0.1": 0.3, "rce-0.5": 0.1}
    trained = study.trained

    def described(setting, seed):
        assert seed == 0
        history = [{"ndcg_20": 0.0}, {"ndcg_20": values[setting.label]}]
        return {"history": history, "best_epoch": 1, "monitor": "ndcg_20"}

    monkeypatch.setattr(study, "trained", described)
    low, high = (Setting("rce", (f"loss.beta={beta}",)) for beta in (0.1, 0.5))
    assert study.choose([Setting("ce"), high, low]) == {"ce": Setting("ce"), "rce": low}
    first = trained(low, 0)
    assert first["config"]["loss"]["beta"] == 0.1
    assert trained(low, 0) == first  # would raise if it trained again: the run is finished


def test_test_metrics_are_kept_for_every_user(manifest, tmp_path):
    study = study_of(manifest, tmp_path)
    found = denoising.ranked(study, Setting("ce"), 0)
    assert set(found) == set(denoising.METRICS)
    again = denoising.ranked(study, Setting("ce"), 0)
    for name, values in found.items():
        np.testing.assert_array_equal(values, again[name])
    assert (study.run(Setting("ce"), 0) / "evaluation.json").is_file()
    overrides = [*study.overrides, "train.patience=3"]
    other = LossStudy(manifest, study.config, overrides, study.folder, Console())
    for use in (other.trained, partial(denoising.ranked, other)):
        with pytest.raises(RunError, match=r"ce-0 holds .* train.patience 1; asked for now: .* 3"):
            use(Setting("ce"), 0)


def test_every_model_tries_the_paper_s_losses():
    for model in ("gmf", "neumf", "cdae"):
        settings = list(denoising.grid(model))
        assert {setting.loss for setting in settings} == {"ce", "tce", "rce"}
        assert len({setting.label for setting in settings}) == len(settings)


def test_the_table_compares_with_cross_entropy_of_the_same_model():
    rng = np.random.default_rng(0)
    base = rng.random((2, 40))
    rows = [
        {
            "model": "gmf",
            "setting": Setting("ce"),
            "values": dict.fromkeys(denoising.METRICS, base),
        },
        {
            "model": "gmf",
            "setting": Setting("rce", ("loss.beta=0.1",)),
            "values": dict.fromkeys(denoising.METRICS, base + 0.125),
        },
    ]
    lines = denoising.markdown(rows).splitlines()
    assert len(lines) == 4
    assert "p =" not in lines[2]
    assert lines[3].startswith("| `gmf` | rce-0.1 |")
    assert lines[3].count("+0.1250 (p = 0.000)") == len(denoising.METRICS)


@pytest.fixture
def study_folder(tmp_path):
    """Two seeds of a loss that drops, one of plain cross entropy."""
    sums = {"batches": 1, "elements": 20, "drop_rate": 0.2, "positives": 10, "loss": 7.0}
    sums |= {"dropped": 4, "weight": 6.0, "known": 10, "false_positives": 5, "loss_false": 5.0}
    for name, dropped_false in {"tce-0.2-0": 3, "tce-0.2-1": 4, "ce-0": 0}.items():
        of_run = {**sums, "dropped_false": dropped_false, "weight_false": 5.0 - dropped_false}
        if name == "ce-0":
            of_run |= {"dropped": 0, "weight": 10.0}
        run = tmp_path / "study" / "gmf" / name
        run.mkdir(parents=True)
        series = {key: np.array([value], np.float64) for key, value in of_run.items()}
        DenoisingRecord(name.split("-")[0], series, {}).save(run)
    return tmp_path / "study"


def test_what_was_dropped_is_set_beside_chance(study_folder, capsys):
    denoising_quality.main(study_folder, fewest=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| `gmf` | ce | 1 | 0.0000 | - | - | 0.5000 | 0.4000 | 1.0000 |")
    assert lines[3].startswith(
        "| `gmf` | tce-0.2 | 2 | 0.4000 | 0.7000 ± 0.1000 | 0.8750 ± 0.1250 | 0.5000 |"
    )
    denoising_quality.main(study_folder, fewest=2)
    assert "| ce |" not in capsys.readouterr().out


def test_a_folder_without_diagnostics_is_named(study_folder, capsys):
    with pytest.raises(typer.Exit):
        denoising_quality.main(study_folder / "gmf", fewest=2)
    assert "run benchmarks.denoising" in capsys.readouterr().err


def test_truth_is_joined_exposure_by_exposure(tmp_path):
    manifest = prepared_simulation(tmp_path / "data")
    model = build_model("gmf", manifest.schema(), embedding_dim=4)
    found = denoising_truth.truth_auc(model, manifest)
    dataset = request_dataset(manifest, "test", 256, encoder=model.encoder, metadata=True)
    expected = ranking_metrics(predict(model, dataset))["ctr_auc"]
    assert found["click"] == pytest.approx(expected)
    assert 0.0 < found["satisfied"] < 1.0
    assert found["satisfied"] != found["click"]


def test_the_truth_table_shows_differences_seed_by_seed():
    ce = [{"satisfied": 0.7, "click": 0.6}, {"satisfied": 0.8, "click": 0.6}]
    tce = [{"satisfied": 0.75, "click": 0.6}, {"satisfied": 0.79, "click": 0.6}]
    rows = [
        {"model": "gmf", "setting": Setting("ce"), "seeds": ce},
        {"model": "gmf", "setting": Setting("tce"), "seeds": tce},
    ]
    lines = denoising_truth.markdown(rows).splitlines()
    assert lines[2].endswith("| - |")
    assert lines[3].endswith("| +0.0500, -0.0100 |")


def test_the_recommenders_benchmark_measures_both_logs(monkeypatch, tmp_path):
    folder = write_ratings(tmp_path / "ml-100k")
    monkeypatch.setattr(recommenders, "log_folder", lambda name: folder)
    report = recommenders.run(users=60, items=100, models=("cdae",), test_rows=50, seconds=0.2)
    assert [row[:2] for row in report.rows] == [["ml-100k", "cdae"], ["simulated", "gmf"]]
    for row in report.rows:
        assert len(row) == len(report.columns)
        assert min(row[5:]) > 0
