import dataclasses

import pytest

from tests.benchmark.conftest import SMALL
from tests.benchmark.test_cells import CELL
from tfrec_feedback import training
from tfrec_feedback.benchmark.cells import KeptResultError, check_made_with, save_cell
from tfrec_feedback.benchmark.rows import Row, dropped_rows, model_rows, sweep_rows
from tfrec_feedback.benchmark.tuning import TUNING_SEED, tune

ROW = Row("dfn_click", "dfn_click")
RATE = "optimizer.learning_rate"


def keep_trials(study, row, manifest, values=(0.5, 0.6)):
    """Writes trials as tuning does, and returns the settings of the last one."""
    best = tune(
        study.trials_folder(row.model),
        len(values),
        study.space(row.model),
        {RATE: 1e-3},
        lambda number, settings: (values[number], 1.0),
        made_with=study.trial_made_with(row.model, manifest),
    )
    return best.settings


def test_what_is_set_by_hand_overrides_what_was_tuned(small_study):
    study = dataclasses.replace(small_study, overrides=(*SMALL, "model.dropout=0.1"))
    row = Row("dfn_click, epochs=7", "dfn_click", ("train.epochs=7",))
    config = study.resolved(row, {RATE: 0.002, "model.dropout": 0.4}, 1)
    assert config.optimizer.learning_rate == 0.002
    assert config.model.params()["dropout"] == 0.1
    assert config.train.epochs == 7
    assert config.train.seed == 1
    assert config.model.name == "dfn_click"
    assert config.data.directory == str(study.data)
    assert study.fixed(row) == {
        "model.dropout",
        "train.epochs",
        *("model.embedding_dim", "model.deep_units", "data.batch_size"),
    }


def test_a_result_belongs_to_settings_and_data_but_not_to_a_place_or_seed(small_study, tiny_data):
    made_with = small_study.made_with(ROW, tiny_data)
    assert made_with["data"] == tiny_data.fingerprint
    # Another default is another model, though nobody has set anything else.
    assert made_with["model"]["num_heads"] == 4
    assert made_with["settings"] == {
        "data": {"batch_size": 64},
        "model": {"name": "dfn_click", "embedding_dim": 4, "deep_units": [8]},
        "train": {"epochs": 1},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"overrides": (*SMALL, "train.patience=2")},
        {"budget": 3},
        {"overrides": (*SMALL, "data.drop=['item_id']")},
    ],
)
def test_kept_cells_of_other_settings_are_found_before_training(small_study, tiny_data, change):
    folder = small_study.cell_folder(ROW.label, 1)
    save_cell(folder, CELL, small_study.cell_made_with(ROW, tiny_data))
    small_study.check([ROW], tiny_data)
    with pytest.raises(KeptResultError, match="cells/dfn_click/seed-1 holds a result made with"):
        dataclasses.replace(small_study, **change).check([ROW], tiny_data)


def test_kept_trials_of_other_settings_are_found_before_training(small_study, tiny_data):
    keep_trials(small_study, ROW, tiny_data)
    small_study.check([ROW], tiny_data)
    other = dataclasses.replace(small_study, overrides=(*SMALL, "train.patience=2"))
    with pytest.raises(KeptResultError, match="trials/dfn_click holds a result made with settings"):
        other.check([ROW], tiny_data)


def test_trials_of_another_space_are_found_before_training(small_study, tiny_data):
    keep_trials(small_study, ROW, tiny_data)
    other = dataclasses.replace(small_study, overrides=(*SMALL, "optimizer.learning_rate=0.001"))
    assert other.made_with(ROW, tiny_data) == small_study.made_with(ROW, tiny_data)
    with pytest.raises(KeptResultError, match="made with space"):
        other.check([ROW], tiny_data)


@pytest.mark.parametrize("budget", [0, 2])
def test_a_sweep_takes_no_settings_that_were_tuned_with_others(small_study, tiny_data, budget):
    row = sweep_rows(["dfn_click"], ["model.dislike_weight=1"])[0]
    keep_trials(small_study, ROW, tiny_data)
    study = dataclasses.replace(small_study, budget=budget)
    study.check([row], tiny_data)
    other = dataclasses.replace(study, overrides=(*SMALL, "train.patience=2"))
    with pytest.raises(KeptResultError, match="trials/dfn_click holds a result made with settings"):
        other.check([row], tiny_data)
    moved = tiny_data.model_copy(update={"fingerprint": "another"})
    with pytest.raises(KeptResultError, match="trials/dfn_click holds a result made with data"):
        study.check([row], moved)


def test_cells_scored_in_another_order_are_found_before_training(small_study, tiny_data):
    row = sweep_rows(["dfn_click"], ["data.batch_size=32"])[0]
    assert "test_batch_size" not in small_study.cell_made_with(ROW, tiny_data)
    made_with = small_study.cell_made_with(row, tiny_data)
    save_cell(small_study.cell_folder(row.label, 0), CELL, made_with)
    small_study.check([row], tiny_data)
    other = dataclasses.replace(small_study, overrides=(*SMALL, "data.batch_size=32"))
    with pytest.raises(KeptResultError, match="made with test_batch_size 64"):
        other.check([row], tiny_data)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("train.seed=1", "--seeds"),
        ("model.name=dfn", "--models"),
        ("data.directory=elsewhere", "--data"),
    ],
)
def test_what_the_study_decides_cannot_be_set_or_swept(small_study, tiny_data, text, option):
    key = text.partition("=")[0]
    expected = f"{key} is set or swept, .* Use {option}"
    with pytest.raises(ValueError, match=expected):
        small_study.check(sweep_rows(["dfn_click"], [text]), tiny_data)
    study = dataclasses.replace(small_study, overrides=(*SMALL, text))
    with pytest.raises(ValueError, match=expected):
        study.check([ROW], tiny_data)


@pytest.mark.parametrize("values", ["0.001,0.001", "1,2,1"])
def test_two_rows_of_one_place_are_found_before_training(small_study, tiny_data, values):
    rows = sweep_rows(["dfn_click"], [f"{RATE}={values}"])
    with pytest.raises(ValueError, match="would both be kept in .*learning_rate="):
        small_study.check(rows, tiny_data)


def test_a_parameter_that_a_model_lacks_is_found_before_training(small_study, tiny_data):
    row = sweep_rows(["dfn"], ["model.dislike_wait=1"])[0]
    with pytest.raises(ValueError, match="Model 'dfn' has no parameter .*'dislike_weight'"):
        small_study.check([row], tiny_data)


def test_a_sweep_takes_the_settings_tuned_before_but_for_what_is_swept(small_study, tiny_data):
    row = sweep_rows(["dfn_click"], ["model.dislike_weight=1"])[0]
    assert small_study.settings(row, tiny_data, print) == {}
    best = keep_trials(small_study, ROW, tiny_data)
    assert RATE in best
    assert small_study.settings(row, tiny_data, print) == best
    swept = sweep_rows(["dfn_click"], [f"{RATE}=0.1"])[0]
    left = {key: value for key, value in best.items() if key != RATE}
    assert small_study.settings(swept, tiny_data, print) == left


def test_a_model_without_a_history_keeps_the_settings_of_the_whole(
    small_study, tiny_data, monkeypatch
):
    trained = []

    def run_trial(self, row, manifest, number, settings):
        trained.append((row, number))
        return 0.5 + number / 10, 1.0

    monkeypatch.setattr(type(small_study), "_run_trial", run_trial)
    config = small_study.resolved(ROW, {}, 0)
    rows = dropped_rows(["dfn_click"], tiny_data.schema(), config)
    found = [small_study.settings(row, tiny_data, lambda line: None) for row in rows]
    assert all(settings == found[0] for settings in found)
    assert trained == [(model_rows(["dfn_click"])[0], number) for number in (0, 1)]


def test_a_diverging_trial_has_no_value_and_leaves_no_run(small_study, tiny_data, monkeypatch):
    seeds = []

    def diverge(config, manifest, run):
        run.mkdir(parents=True)
        seeds.append(config.train.seed)
        raise training.NonFiniteLossError("The loss became nan.")

    monkeypatch.setattr(training, "train", diverge)
    lines = []
    with pytest.raises(RuntimeError, match="All 2 trials"):
        small_study.settings(ROW, tiny_data, lines.append)
    assert lines[0].startswith("dfn_click, trial 0: diverged, ")
    folder = small_study.trials_folder("dfn_click")
    assert sorted(p.name for p in folder.iterdir()) == ["trial-000.json", "trial-001.json"]
    assert check_made_with(
        folder / "trial-000.json", small_study.trial_made_with("dfn_click", tiny_data)
    )
    assert seeds == [TUNING_SEED, TUNING_SEED]


def test_weight_decay_is_tuned_where_the_optimiser_has_it(small_study):
    assert list(small_study.space("dfn")) == [
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "model.dropout",
    ]
    other = dataclasses.replace(small_study, overrides=(*SMALL, "optimizer.name=adagrad"))
    assert list(other.space("dfn")) == ["optimizer.learning_rate", "model.dropout"]


def test_without_budget_nothing_is_tuned(small_study, tiny_data):
    study = dataclasses.replace(small_study, budget=0)
    assert study.settings(ROW, tiny_data, print) == {}
    assert not study.trials_folder("dfn_click").exists()
