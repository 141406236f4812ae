import json
import shutil

import numpy as np
import pytest

from tfrec_feedback.benchmark.cells import KeptResultError
from tfrec_feedback.benchmark.tuning import (
    SPACE,
    Trial,
    best_trial,
    search_space,
    starting_point,
    tune,
    tuned_settings,
)
from tfrec_feedback.config import load_config

RATE = "optimizer.learning_rate"
SPACE_OF_RATE = search_space([], fixed=set(SPACE) - {RATE})
START = {RATE: 1e-3}


def run(number, settings):
    """Best at a learning rate of 0.003; the shared settings count as 0.001."""
    return -(np.log10(settings.get(RATE, 1e-3) / 3e-3) ** 2), 1.5


def search(folder, budget, space=SPACE_OF_RATE, function=run, made_with=None, seen=None):
    return tune(
        folder,
        budget,
        space,
        START,
        function,
        made_with=made_with or {"data": "abc"},
        on_trial=(seen if seen is not None else []).append,
    )


def test_the_space_holds_what_the_model_has_and_nobody_has_set():
    assert RATE in search_space(["embedding_dim"])
    assert "model.dropout" not in search_space(["embedding_dim"])
    assert "model.dropout" in search_space(["embedding_dim", "dropout"])
    assert RATE not in search_space(["dropout"], fixed=[RATE])


def test_trial_0_takes_the_shared_settings_and_the_others_stay_in_the_space(tmp_path):
    seen = []
    search(tmp_path / "dfn", 6, search_space(["dropout"]), seen=seen)
    assert seen[0].settings == {}
    assert [trial.number for trial in seen] == [0, 1, 2, 3, 4, 5]
    for trial in seen[1:]:
        assert set(trial.settings) == set(search_space(["dropout"]))
        for key, value in trial.settings.items():
            assert SPACE[key].low <= value <= SPACE[key].high


def test_the_best_trial_wins_and_its_settings_are_found_again(tmp_path):
    seen = []
    best = search(tmp_path / "dfn", 6, seen=seen)
    assert best.value == max(trial.value for trial in seen)
    assert tuned_settings(tmp_path / "dfn") == best.settings
    assert tuned_settings(tmp_path / "fm") == {}


def test_the_first_of_equal_trials_wins(tmp_path):
    trials = [Trial(0, {}, 0.5, 1.0), Trial(1, {RATE: 1.0}, 0.7, 1.0), Trial(2, {}, 0.7, 1.0)]
    assert best_trial(trials, tmp_path).number == 1


def test_a_resumed_search_equals_an_uninterrupted_one(tmp_path):
    whole, resumed = [], []
    search(tmp_path / "whole" / "dfn", 7, seen=whole)
    search(tmp_path / "resumed" / "dfn", 3, seen=resumed)
    search(tmp_path / "resumed" / "dfn", 7, seen=resumed)
    assert resumed == whole
    # Neither does it matter which of the files were lost.
    shutil.rmtree(tmp_path / "resumed")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    (tmp_path / "resumed" / "dfn" / "trial-006.json").unlink()
    again = []
    search(tmp_path / "resumed" / "dfn", 7, seen=again)
    assert again == whole[6:]


def test_models_are_searched_with_draws_of_their_own(tmp_path):
    seen = {"dfn": [], "fm": []}
    for name, trials in seen.items():
        search(tmp_path / name, 2, seen=trials)
    assert seen["dfn"][1].settings != seen["fm"][1].settings


def test_a_smaller_budget_counts_its_own_trials_alone(tmp_path):
    rising = search(tmp_path / "dfn", 4, function=lambda number, settings: (number, 1.0))
    assert rising.number == 3
    assert search(tmp_path / "dfn", 2).number == 1


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf")])
def test_a_diverged_trial_is_recorded_and_loses(tmp_path, value):
    def diverge(number, settings):
        return (value, 1.0) if number in (0, 5) else run(number, settings)

    best = search(tmp_path / "dfn", 6, function=diverge)
    assert best.number not in (0, 5)
    for number in (0, 5):
        described = json.loads((tmp_path / "dfn" / f"trial-00{number}.json").read_text())
        assert described["value"] is None


def test_a_search_without_any_value_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="All 2 trials in .*dfn diverged"):
        search(tmp_path / "dfn", 2, function=lambda number, settings: (None, 1.0))


def test_trials_of_other_settings_are_an_error(tmp_path):
    search(tmp_path / "dfn", 2)
    with pytest.raises(KeptResultError, match=r"dfn holds a result made with data abc"):
        search(tmp_path / "dfn", 2, made_with={"data": "xyz"})


def test_the_starting_point_is_that_of_the_shared_settings():
    config = load_config(overrides=["optimizer.learning_rate=0.005", "model.dropout=0.25"])
    start = starting_point(config, {"dropout": 0.0, "embedding_dim": 8})
    assert start[RATE] == 0.005
    assert start["model.dropout"] == 0.25
    assert starting_point(load_config(), {"dropout": 0.1})["model.dropout"] == 0.1
