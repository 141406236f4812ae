from pathlib import Path

import pytest

import pipelines
from tfrec_feedback.benchmark.suites import (
    DEFAULT_MODELS,
    SUITES,
    Suite,
    check_models,
    find_suite,
    suite_data,
)
from tfrec_feedback.config import ModelConfig, load_config
from tfrec_feedback.models import BASELINES

CONFIGS = Path(pipelines.__file__).parent / "configs"
TINY = Suite(
    "tiny",
    "simulated",
    "benchmark_simulated.toml",
    reading={"num_users": 20, "num_items": 30, "num_days": 2, "seed": 0},
    preparation={"history_length": 5, "num_samples": 1, "num_sessions": 2},
)


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_every_suite_has_settings_that_load_and_leaves_the_model_open(suite):
    config = load_config(CONFIGS / suite.config)
    assert config.train.snapshots == 0
    assert config.model.name == ModelConfig().name
    assert config.model.params() == {"embedding_dim": 16}  # what every model has
    assert suite.preparation == {"history_length": 30, "num_samples": 4, "num_sessions": 5}


def test_data_are_prepared_once_and_then_read(tmp_path):
    manifest = suite_data(TINY, tmp_path / "data")
    assert manifest.options["history_length"] == 5
    written = (tmp_path / "data" / "manifest.json").stat().st_mtime_ns
    again = suite_data(TINY, tmp_path / "data")
    assert again.fingerprint == manifest.fingerprint
    assert (tmp_path / "data" / "manifest.json").stat().st_mtime_ns == written


def test_a_missing_log_is_named_with_the_remedy(tmp_path, monkeypatch):
    suite = find_suite("kuairand-pure")
    with pytest.raises(FileNotFoundError, match=r"logs/kuairand-pure, .* --logs"):
        suite_data(suite, tmp_path / "data", tmp_path / "logs")
    monkeypatch.setenv("FEEDBACK_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere/kuairand-pure"):
        suite_data(suite, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_unknown_names_are_errors_with_the_closest_known_one():
    with pytest.raises(ValueError, match="Did you mean 'kuairand-pure'"):
        find_suite("kuairand-pur")
    with pytest.raises(ValueError, match="Did you mean 'dfn_click'"):
        check_models(["dfn", "dfn_clik"])
    with pytest.raises(ValueError, match="'dfn' is named 2 times"):
        check_models(["dfn", "dumn", "dfn"])
    with pytest.raises(ValueError, match="No models"):
        check_models([])
    assert check_models(["dfn", "dumn"]) == ["dfn", "dumn"]


def test_the_default_models_begin_with_the_base_and_end_with_the_papers_models():
    assert DEFAULT_MODELS[0] == "fm"
    assert DEFAULT_MODELS[-2:] == ("dfn", "dumn")
    assert set(DEFAULT_MODELS) == {*BASELINES, "din_plus", "dfn", "dumn"}
    assert len(set(DEFAULT_MODELS)) == len(DEFAULT_MODELS)
