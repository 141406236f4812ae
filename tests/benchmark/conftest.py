import pytest

from tfrec_feedback.benchmark.study import Study

SMALL = ("model.embedding_dim=4", "model.deep_units=[8]", "data.batch_size=64", "train.epochs=1")


@pytest.fixture
def small_study(tiny_data, tmp_path):
    return Study(tmp_path / "study", tiny_data.directory, None, SMALL, seeds=2, budget=2)
