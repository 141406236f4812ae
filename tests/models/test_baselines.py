"""Every click model of the literature does what every model here must, and is served alike."""

import numpy as np
import pytest
import tensorflow as tf

from serving.client import FeedbackClient
from serving.server import FeedbackServer
from tests.examples import has_sessions, random_batch, random_request, small_schema, tensors
from tests.layers.conformance import assert_close
from tests.models.conformance import check_model, perturbed
from tfrec_feedback.export import publish
from tfrec_feedback.losses import FeedbackCrossEntropy
from tfrec_feedback.models import BASELINES, MODELS, build_model
from tfrec_feedback.schema import Feature, Identity, Schema, SchemaError

TWO = {"embedding_dim": 4, "histories": ["click", "dislike"]}
DEEP = {**TWO, "deep_units": (8, 4)}
MEMORY = {"memory_size": 4, "word_size": 4, "controller_units": 6}
EXPERTS = {"num_heads": 2, "num_experts": 2, "expert_units": (6, 4), "tower_units": (3,)}
SMALL = {
    "fm": TWO,
    "wide_deep": {**DEEP, "crosses": [["user_id", "item_id"], ["tag", "interests"]]},
    "pnn": DEEP,
    "deepfm": DEEP,
    "nfm": DEEP,
    "afm": TWO,
    "dcn": DEEP,
    "dcn_v2": DEEP,
    "din": {**DEEP, "attention_units": (6,)},
    "dien": {**DEEP, "auxiliary_units": (4,)},
    "dsin": {**DEEP, "num_heads": 2, "attention_units": (4,)},
    "autoint": {**TWO, "attention_units": 3},
    "autoint_umn": {**TWO, "attention_units": 3, "user_memory": MEMORY},
    "dmt": {**TWO, **EXPERTS},
}
"""A small form of every baseline."""


def schema_of(name):
    return small_schema(num_sessions=2 if name == "dsin" else 0)


def small(name, **params):
    tf.keras.utils.set_random_seed(0)  # Few units with ReLU may all be silent by chance.
    return perturbed(build_model(name, schema_of(name), **{**SMALL[name], **params}))


def test_every_baseline_is_tested():
    assert set(SMALL) == set(BASELINES)


# Those with layers of their own pass the same harness beside the tests of those layers.
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("fm", {}),
        ("wide_deep", {}),
        ("pnn", {}),
        ("pnn", {"outer": "pairwise"}),
        ("deepfm", {}),
        ("nfm", {}),
        ("afm", {}),
        ("dcn", {}),
        ("dcn_v2", {"projection_dim": 3}),
        ("din", {"attention_units": (6, 4)}),
        ("din", {"attention_softmax": True, "deep_activation": "dice", "dislike_head": True}),
        ("autoint", {}),
        ("autoint_umn", {"histories": ["click", "unclick"]}),
    ],
)
def test_conformance(name, params, tmp_path):
    check_model(name, tmp_path, **{**SMALL[name], **params})


@pytest.mark.parametrize("name", SMALL)
def test_served_scores_are_those_of_keras(name, tmp_path):
    model, schema = small(name), schema_of(name)
    publish(model, tmp_path / "model", version=1)
    rng = np.random.default_rng(0)
    requests = [random_request(rng, sessions=has_sessions(schema)) for _ in range(6)]
    batch = tensors(schema, requests)
    logits = model(batch)
    with (
        FeedbackServer(tmp_path / "model", "model") as server,
        FeedbackClient(server.target, "model", schema, timeout=60) as client,
    ):
        answers = client.rank_many(requests)
    for r, (answer, count) in enumerate(zip(answers, batch["num_candidates"].numpy(), strict=True)):
        expected = {task: tf.sigmoid(x[r, :count]) for task, x in logits.items()}
        assert_close(answer, expected, 1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_all_histories_are_inputs(name):
    """Reading none of a model's histories, or only some, changes its scores."""
    every = {"histories": None} if name != "autoint_umn" else {"histories": ["click", "unclick"]}
    model = small(name, **every)
    batch = random_batch(model.schema, 6)
    for history in model.histories:
        emptied = {**batch, history.length: tf.zeros_like(batch[history.length])}
        assert np.abs(model(emptied)["ctr"] - model(batch)["ctr"]).max() > 1e-6, history.name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("fm", "linear"),
        ("afm", "linear"),
        ("nfm", "linear"),
        ("deepfm", "linear"),
        ("wide_deep", "crosses"),
        ("dcn", "vector_cross"),
    ],
)
def test_a_dislike_head_reads_what_the_logit_adds_up(name, part):
    model = small(name, dislike_head=True)
    batch = random_batch(model.schema, 6)
    before = model(batch)
    for weight in getattr(model, part).weights:
        weight.assign_add(0.5 * tf.ones_like(weight))
    after = model(batch)
    for task in ("ctr", "dislike"):
        assert np.abs(after[task] - before[task]).max() > 1e-3, task


@pytest.mark.parametrize("name", ["fm", "din", "autoint"])
def test_a_baseline_can_be_trained_on_dislikes_alone(name):
    model = small(name, dislike_protocol="dislike_label")
    logits = model(random_batch(model.schema))
    np.testing.assert_array_equal(logits["ctr"], -logits["dislike"])


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_has_a_plus_with_dfns_loss(name):
    cls, preset = MODELS[f"{name}_plus"]
    assert cls is BASELINES[name][0]
    assert preset == {**BASELINES[name][1], "dislike_weight": 10.0}


def test_a_baseline_is_trained_on_plain_cross_entropy_and_its_plus_is_not():
    weights = [small("fm").click_task, small("fm", dislike_weight=10.0).click_task]
    losses = [task._loss for task in weights]
    assert all(isinstance(loss, FeedbackCrossEntropy) for loss in losses)
    assert [loss.dislike_weight for loss in losses] == [1.0, 10.0]


@pytest.mark.parametrize(
    "name", [n for n in sorted(SMALL) if n not in ("dsin", "autoint_umn", "afm")]
)
def test_a_schema_of_candidates_alone_will_do(name):
    """Without context and histories nothing is left to share."""
    features = (Feature("item_id", Identity(9)), Feature("shelf", Identity(3)))
    schema = Schema(context=(), candidate=features)
    params = {**SMALL[name], "histories": None, "crosses": [["item_id", "shelf"]]}
    if name != "wide_deep":
        del params["crosses"]
    tf.keras.utils.set_random_seed(1)
    model = perturbed(build_model(name, schema, **params))
    batch = {
        "item_id": tf.constant([[1, 2, 3]], tf.int64),
        "shelf": tf.constant([[0, 1, 2]], tf.int64),
        "num_candidates": tf.constant([3], tf.int64),
    }
    together = tf.function(model)(batch)["ctr"].numpy()
    assert np.isfinite(together).all()
    assert np.ptp(together) > 1e-6


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        ("pnn", {"products": ["inner", "cross"]}, ValueError, "products must be some of"),
        ("pnn", {"outer": "sum"}, ValueError, "'superposition' or 'pairwise'"),
        ("dcn", {"cross": "tensor"}, ValueError, "cross must be one of"),
        ("dcn", {"projection_dim": 2}, ValueError, "set cross='matrix'"),
        ("dcn", {"num_cross_layers": 0}, ValueError, "num_cross_layers must be at least 1"),
        ("din", {"attention_units": ()}, ValueError, "at least one width"),
        ("deepfm", {"deep_units": ()}, ValueError, "at least one width"),
        ("autoint", {"num_layers": 0}, ValueError, "num_layers must be at least 1"),
        ("autoint", {"num_heads": 0}, ValueError, "must be positive"),
        ("fm", {"histories": ["clicks"]}, SchemaError, "Did you mean 'click'"),
        ("wide_deep", {"crosses": [["item_id"]]}, SchemaError, "A cross is a pair"),
        ("wide_deep", {"crosses": [["item", "tag"]]}, SchemaError, "Unknown feature 'item'"),
        ("fm", {"deep_units": (8,)}, ValueError, "no parameter 'deep_units'"),
    ],
)
def test_wrong_parameters_are_refused(name, params, error, message):
    given = {key: value for key, value in SMALL[name].items() if key not in params}
    with pytest.raises(error, match=message):
        build_model(name, small_schema(), **given, **params)
