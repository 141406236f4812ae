import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, small_schema
from tests.models.conformance import check_model, perturbed
from tfrec_feedback.models import build_model
from tfrec_feedback.schema import SchemaError

SMALL = {
    "embedding_dim": 4,
    "num_heads": 2,
    "attention_units": (6, 3),
    "deep_units": (8, 4),
}
SCHEMA = small_schema(num_sessions=2)


def with_sessions(*names):
    """The small schema with the sessions of some histories only."""
    histories = tuple(
        dataclasses.replace(h, num_sessions=2 if h.name in names else 0) for h in SCHEMA.histories
    )
    return dataclasses.replace(SCHEMA, histories=histories)


def model(schema=SCHEMA, **params):
    return perturbed(build_model("dsin", schema, **{**SMALL, **params}))


def batch(seed=0, **options):
    return random_batch(SCHEMA, 4, seed, **options)


def test_conformance(tmp_path):
    check_model("dsin", tmp_path, schema=with_sessions("click", "dislike"), **SMALL)


def test_scores_follow_the_sessions():
    features, scorer = batch(), model()
    merged = {n: tf.zeros_like(x) if "_session" in n else x for n, x in features.items()}
    assert np.abs(scorer(merged)["ctr"] - scorer(features)["ctr"]).max() > 1e-3
    # What is older than the sessions told apart is not read, however old it is.
    older = {n: tf.where(x >= 2, x + 7, x) if "_session" in n else x for n, x in features.items()}
    np.testing.assert_array_equal(scorer(older)["ctr"], scorer(features)["ctr"])


def test_every_history_is_read_with_and_without_sessions():
    scorer = model(with_sessions("click", "dislike"))
    assert list(scorer.sessions) == ["click", "dislike"]
    assert scorer.pooled == ["unclick", "like"]
    features = batch(longest=4)
    for history in SCHEMA.histories:
        emptied = {**features, history.length: tf.zeros_like(features[history.length])}
        changed = np.abs(scorer(emptied)["ctr"] - scorer(features)["ctr"]).max()
        assert changed > 1e-4, history.name


def test_a_choice_of_histories_leaves_the_others_out():
    scorer = model(histories=("click",))
    features = batch()
    assert list(scorer.sessions) == ["click"]
    emptied = {**features, "like_length": tf.zeros_like(features["like_length"])}
    np.testing.assert_array_equal(scorer(emptied)["ctr"], scorer(features)["ctr"])


def test_a_history_of_old_sessions_alone_is_as_no_history():
    scorer, features = model(), batch()
    old = {
        n: tf.fill(x.shape, tf.cast(2, x.dtype)) if "_session" in n else x
        for n, x in features.items()
    }
    none = {n: tf.zeros_like(x) if n.endswith("_length") else x for n, x in features.items()}
    np.testing.assert_allclose(scorer(old)["ctr"], scorer(none)["ctr"], atol=1e-6)


def test_the_session_encoding_is_made_once_a_request():
    scorer = model()
    rows = []
    layer = scorer.sessions["click"]
    original = layer.call
    layer.call = lambda inputs: rows.append(inputs[0].shape[0]) or original(inputs)
    scorer(batch(num_candidates=5))
    assert rows == [4]


@pytest.mark.parametrize(
    ("schema", "params", "message"),
    [
        (SCHEMA.without_sessions(), {}, "none of .* has any. Prepare them with `--sessions 5`"),
        (SCHEMA, {"num_heads": 3}, "num_heads=3 must divide D=8"),
        (with_sessions("like"), {"histories": ("click",)}, r"none of \['click'\] has any"),
    ],
)
def test_what_dsin_cannot_read_is_refused(schema, params, message):
    with pytest.raises((SchemaError, ValueError), match=message):
        build_model("dsin", schema, **{**SMALL, **params})


def test_the_defaults_are_those_of_the_paper_and_its_code():
    built = build_model("dsin", SCHEMA)
    layer = built.sessions["click"]
    assert (layer.num_sessions, layer.session_length, layer.num_heads) == (2, 10, 8)
    assert built.reads_sessions
    # One event is two fields of 16.
    assert layer.kernels["query"].shape == (32, 32)
    assert built._click_output.kernel.shape == (80, 1)
