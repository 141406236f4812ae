"""One small prepared log, one run trained on it and its published version, made once a session."""

import pytest
import tensorflow as tf
from hypothesis import settings

from tfrec_feedback.config import load_config
from tfrec_feedback.data.prepare import prepare
from tfrec_feedback.data.sources import load_source

# Times vary on a shared machine; a slow example is not a wrong one.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

SLOWEST = ("test_readme.py", "test_training.py", "test_benchmarks.py")
"""Files that run longest; last, one of them would keep one worker busy and the others waiting."""


def pytest_collection_modifyitems(items):
    """Starts the slowest files first."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.fixture(autouse=True)
def same_draws():
    """Weights and dropout are drawn alike in every run of a test, whatever ran before it."""
    tf.keras.utils.set_random_seed(0)


TINY_RUN = [
    "model.name=dfn_click",  # one history: its graph is made in a third of the time
    "data.batch_size=32",
    "train.epochs=1",
    "model.embedding_dim=4",
    "model.num_heads=1",
    "model.deep_units=[8]",
]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Manifest of about 300 requests with 4 to 10 candidates. Do not change its files."""
    source = load_source("simulated", num_users=60, num_items=80, num_days=6, seed=0)
    return prepare(source, tmp_path_factory.mktemp("tiny") / "data", shards=2)


@pytest.fixture(scope="session")
def tiny_run(tiny_data, tmp_path_factory):
    """Folder of a finished run of one epoch."""
    from tfrec_feedback.training import train

    config = load_config(overrides=[f"data.directory='{tiny_data.directory}'", *TINY_RUN])
    run = tmp_path_factory.mktemp("tiny") / "run"
    train(config, tiny_data, run)
    return run


@pytest.fixture(scope="session")
def tiny_version(tiny_run, tmp_path_factory):
    """Folder of version 3 of the run's model."""
    from tfrec_feedback.export import export_run

    return export_run(tiny_run, tmp_path_factory.mktemp("tiny") / "models", version=3)
