import json

import numpy as np
import pytest

from tfrec_feedback.benchmark.cells import (
    Cell,
    KeptResultError,
    check_made_with,
    load_cell,
    save_cell,
    slug,
)
from tfrec_feedback.evaluation import Predictions

PREDICTIONS = Predictions(
    labels={"ctr": np.array([1.0, 0.0, 1.0]), "dislike": np.array([0.0, 1.0, 0.0])},
    logits={"ctr": np.array([2.0, -1.0, 0.5]), "dislike": np.array([-2.0, 1.0, -0.5])},
    users=np.array([0, 0, 1]),
    weights=np.ones(3),
    history=np.array([3, 3, 0]),
    clicks=np.array([1, 1, 0]),
    request_size=np.array([2, 2, 1]),
)
CELL = Cell(
    label="dfn, dislike_weight=5",
    seed=2,
    parameters=1234,
    settings={"optimizer.learning_rate": 0.002},
    history=[{"loss": 0.7, "ctr_auc": 0.6}, {"loss": 0.6, "ctr_auc": 0.65}],
    best_epoch=1,
    predictions=PREDICTIONS,
    seconds=12.5,
)


def test_a_cell_is_read_as_it_was_written(tmp_path):
    save_cell(tmp_path / "cell", CELL)
    found = load_cell(tmp_path / "cell")
    for name in ("label", "seed", "parameters", "settings", "history", "best_epoch", "seconds"):
        assert getattr(found, name) == getattr(CELL, name)
    for name in ("users", "weights", "history", "clicks", "request_size"):
        expected = getattr(PREDICTIONS, name)
        np.testing.assert_array_equal(getattr(found.predictions, name), expected)
    for name in ("labels", "logits"):
        assert set(getattr(found.predictions, name)) == {"ctr", "dislike"}
        for task, expected in getattr(PREDICTIONS, name).items():
            np.testing.assert_array_equal(getattr(found.predictions, name)[task], expected)


def test_a_metric_without_a_value_survives_json(tmp_path):
    history = [{"loss": 0.7, "dislike_auc": float("nan")}]
    save_cell(tmp_path, Cell("fm", 0, 1, {}, history, 0, PREDICTIONS, 1.0))
    text = (tmp_path / "cell.json").read_text()
    assert json.loads(text)["history"] == [{"loss": 0.7, "dislike_auc": None}]
    assert np.isnan(load_cell(tmp_path).history[0]["dislike_auc"])


def test_predictions_alone_are_no_cell(tmp_path):
    save_cell(tmp_path, CELL)
    (tmp_path / "cell.json").unlink()
    with pytest.raises(FileNotFoundError, match="No finished cell in"):
        load_cell(tmp_path)


def test_a_cell_of_other_settings_is_an_error_that_names_folder_and_difference(tmp_path):
    save_cell(tmp_path / "seed-0", CELL, {"settings": {"train": {"epochs": 3}}, "data": "abc"})
    path = tmp_path / "seed-0" / "cell.json"
    assert check_made_with(path, {"settings": {"train": {"epochs": 3}}, "data": "abc"})
    with pytest.raises(KeptResultError, match=r"seed-0 .* made with data abc; asked for now: xyz"):
        check_made_with(path, {"settings": {"train": {"epochs": 3}}, "data": "xyz"})
    assert check_made_with(path, {"settings": {"train": {"epochs": 3}}}, but=["data"])
    assert not check_made_with(tmp_path / "seed-1" / "cell.json", {"data": "xyz"})


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("dfn", "dfn"),
        ("dfn, dislike_weight=0.5", "dfn-dislike_weight=0.5"),
        ("dfn, deep_units=[8]", "dfn-deep_units=-8"),
        ("../dfn, no click", "..-dfn-no-click"),
    ],
)
def test_a_label_becomes_a_folder_name(label, expected):
    assert slug(label) == expected
