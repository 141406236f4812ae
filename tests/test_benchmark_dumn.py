"""The benchmark of DUMN on tiny sizes: it compares equal models and counts what there is."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import dumn
from benchmarks.dumn import Sizes
from benchmarks.workload import request_tensors, user_a_candidate

TINY = Sizes(
    history_length=6,
    embedding_dim=4,
    dfn_dim=4,
    memory={"memory_size": 6, "word_size": 5, "controller_units": 7},
)


def test_training_and_requests_are_timed_at_both_lengths(monkeypatch):
    monkeypatch.setattr(dumn, "MODELS", ("dumn", "dumn_no_umn"))
    monkeypatch.setattr(dumn, "_footprint", lambda sizes, batches: None)
    training, requests, _ = dumn.run(TINY, {2: 3}, candidates=(3,), repeats=1)
    assert [row[:4] for row in training.rows] == [
        [length, 2, 3, name] for length in ("full", "KuaiRand") for name in dumn.MODELS
    ]
    for *_, milliseconds, rate, _, _ in training.rows:
        assert rate == pytest.approx(6 / (milliseconds / 1e3))
    assert [row[:2] for row in requests.rows] == [["full", 3], ["KuaiRand", 3]]
    assert all(
        len(row) == len(report.columns) for report in (training, requests) for row in report.rows
    )


def test_the_footprint_counts_every_number():
    embeddings, others, memories, slots, peak, of_steps = dumn.footprint("dumn", TINY, 2, 1)
    assert memories == 4 * 6 * 5
    assert slots == 2 * (embeddings + others)
    assert 0 <= of_steps < peak


def test_repeating_the_user_changes_no_score():
    model, schema = TINY.model("dumn"), TINY.schema()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    features = request_tensors(rng, schema, 1, 5, full=False)
    features = {spec.name: features[spec.name] for spec in schema.inputs()}
    together, alone = model(features)["ctr"], model(user_a_candidate(features, schema))["ctr"]
    assert together.shape == (1, 5) and alone.shape == (5, 1)
    assert np.std(together) > 0.01
    dumn.check_equal(together, alone)


def test_forms_that_differ_are_not_timed():
    with pytest.raises(RuntimeError, match=r"by 0\.5 in a logit"):
        dumn.check_equal(tf.constant([[1.0, 2.0]]), tf.constant([[1.0], [2.5]]))
