import json

import pytest

from tfrec_feedback.denoising.grid import Point, read_sensitivity


def evaluated(folder, loss, value, model="gmf", split="test", task=False):
    folder.mkdir(parents=True)
    config = {"model": {"name": model}, "loss": loss}
    described = {"config": config, "data_fingerprint": "x"}
    (folder / "run.json").write_text(json.dumps(described))
    measured = {"value": value, "low": value - 0.125, "high": value + 0.125}
    found = {"tasks": {"ctr": {"auc": measured}}} if task else {"metrics": {"recall_20": measured}}
    (folder / "evaluation.json").write_text(json.dumps({"split": split, **found}))


def test_runs_are_read_by_the_options_of_their_loss(tmp_path):
    evaluated(tmp_path / "ce", {"name": "ce", "beta": None}, 0.25)
    evaluated(tmp_path / "tce-0", {"name": "tce", "max_rate": 0.1, "num_steps": 500}, 0.5)
    evaluated(tmp_path / "tce-1", {"name": "tce", "max_rate": 0.1, "num_steps": 500}, 0.625)
    evaluated(tmp_path / "deep" / "tce", {"name": "tce", "max_rate": 0.1}, 0.75)
    evaluated(tmp_path / "rce", {"name": "rce"}, 0.375)
    evaluated(tmp_path / "other", {"name": "rce", "beta": 0.5}, 0.375, split="validation")
    found = read_sensitivity(tmp_path)
    assert found.metric == "Recall@20"
    assert found.baseline == [Point(0.25, 0.125, 0.375)]
    values = {key: [p.value for p in points] for key, points in found.truncated.items()}
    # What a run does not say is the loss's default.
    assert values == {(0.1, 500): [0.5, 0.625], (0.1, 30_000): [0.75]}
    assert list(found.reweighted) == [0.2]


def test_impressions_are_judged_by_their_auc(tmp_path):
    evaluated(tmp_path / "rce", {"name": "rce", "beta": 0.5}, 0.75, task=True)
    found = read_sensitivity(tmp_path)
    assert (found.metric, found.reweighted) == ("click AUC", {0.5: [Point(0.75, 0.625, 0.875)]})


def test_runs_that_trust_every_click_are_no_grid(tmp_path):
    evaluated(tmp_path / "a", {"name": "ce"}, 0.75)
    evaluated(tmp_path / "b", None, 0.75, model="neumf")
    found = read_sensitivity(tmp_path)
    assert (found.baseline, found.truncated, found.reweighted) == ([], {}, {})


@pytest.mark.parametrize(
    ("loss", "model"),
    [({"name": "rce"}, "neumf"), ({"name": "tce", "drop_base": "positives"}, "gmf")],
)
def test_runs_that_differ_in_anything_else_are_refused(tmp_path, loss, model):
    evaluated(tmp_path / "a", {"name": "tce"}, 0.75)
    evaluated(tmp_path / "b", loss, 0.75, model=model)
    with pytest.raises(ValueError, match="do not belong in one picture"):
        read_sensitivity(tmp_path)
