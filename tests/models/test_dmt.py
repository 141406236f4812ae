import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, small_schema
from tests.layers.conformance import assert_close
from tests.models.conformance import check_model, perturbed
from tfrec_feedback.models.dmt import DMT
from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema, SchemaError

SMALL = {
    "embedding_dim": 4,
    "num_heads": 2,
    "expert_units": (8, 6),
    "num_experts": 2,
    "tower_units": (5,),
}
BIAS = {"bias_features": ("duration", "hour"), "bias_units": (4,)}


def example(**params):
    model = DMT(small_schema(), **{**SMALL, **params})
    model.build_weights()
    return perturbed(model)


def moved(batch):
    """The same requests elsewhere: other values of the features of `BIAS`, nothing else."""
    return {**batch, "duration": batch["duration"] + 40.0, "hour": (batch["hour"] + 7) % 24}


@pytest.mark.parametrize(
    "params",
    [
        {"histories": ("click", "dislike")},
        {**BIAS, "histories": ("click",), "dislike_head": True, "dropout": 0.1},
    ],
    ids=["one_task", "two_tasks_and_bias"],
)
def test_conformance(params, tmp_path):
    # Few histories: tracing a graph takes seconds, each history's transformer its share of them.
    check_model("dmt", tmp_path, **{**SMALL, **params})


def test_parameters_counted_by_hand():
    schema = Schema(
        context=(Feature("hour", Identity(24)),),
        candidate=(Feature("item_id", Identity(10)), Feature("position", Identity(6))),
        histories=tuple(FeedbackSequence(n, ("item_id",), 3) for n in ("click", "dislike")),
    )
    model = DMT(schema, **SMALL, bias_features=("position",), bias_units=(3,), dislike_head=True)
    model.build_weights()
    tables = (26 + 12 + 8) * 4
    # Positions, then encoder and decoder: 4 kernels, network, 2 normalisations of width D = 4.
    transformer = 3 * 4 + 2 * (4 * 4 * 4 + (4 * 16 + 16) + (16 * 4 + 4) + 2 * (4 + 4))
    # User 4, item 4, an interest of 4 for each of two histories.
    experts = 2 * ((16 * 8 + 8) + (8 * 6 + 6)) + 2 * 16 * 2
    tower = (6 * 5 + 5) + (5 + 1)
    bias = (4 * 3 + 3) + (3 + 1)
    assert model.count_params() == tables + 2 * transformer + experts + 2 * tower + bias == 1665


def test_defaults_are_the_papers():
    model = DMT(small_schema())
    assert model.experts.units == (512, 256, 128)
    assert model.experts.num_experts == 4
    assert [layer.units for layer in model.towers["ctr"]] == [32]
    assert {t.num_heads for t in model.transformers.values()} == {4}
    assert model.has_auxiliary_loss is False


def test_every_history_is_read_unless_left_out():
    batch = random_batch(small_schema())
    for read in (("click", "unclick", "like", "dislike"), ("click", "dislike")):
        model = example(histories=read)
        for history in ("click", "unclick", "like", "dislike"):
            emptied = {**batch, f"{history}_length": tf.zeros_like(batch["click_length"])}
            changed = np.abs(model(emptied)["ctr"] - model(batch)["ctr"]).max()
            assert (changed > 1e-6) == (history in read), (read, history)


def test_the_order_of_a_history_matters():
    model = example()
    batch = {**random_batch(small_schema()), "click_length": tf.fill([4], 2)}
    ids = tf.constant([[100, 101, 102, 103, 104]] * 4, tf.int64)
    first = model({**batch, "click_item_id": ids[:, : batch["click_item_id"].shape[1]]})
    swapped = tf.gather(ids, [1, 0, 2, 3, 4], axis=1)
    second = model({**batch, "click_item_id": swapped[:, : batch["click_item_id"].shape[1]]})
    assert np.abs(first["ctr"] - second["ctr"]).max() > 1e-5


def test_equal_candidates_get_equal_scores():
    model = example()
    one = random_batch(small_schema(), num_requests=1, num_candidates=1)
    candidate = ("item_id", "tag", "tag_count", "duration")
    many = {n: tf.repeat(x, 5, axis=1) if n in candidate else x for n, x in one.items()}
    scores = model({**many, "num_candidates": tf.constant([5], tf.int64)})["ctr"]
    assert_close(scores, tf.repeat(model(one)["ctr"], 5, axis=1), 1e-5)


def test_each_task_has_a_tower_and_a_gate_of_its_own():
    model = example(dislike_head=True)
    batch = random_batch(small_schema())
    before = model(batch)
    for variable in (model.towers["dislike"][0].kernel, model.experts.gate_kernels[1]):
        variable.assign(variable * 3.0)
        after = model(batch)
        assert_close(after["ctr"], before["ctr"], 0.0)
        assert np.abs(after["dislike"] - before["dislike"]).max() > 1e-4
        before = after


@pytest.mark.parametrize("more", [{}, {"dislike_head": True}])
def test_bias_features_never_touch_the_served_logits(more):
    model = example(**BIAS, **more)
    batch = random_batch(small_schema())
    here = model(batch, return_auxiliary=True)
    there = model(moved(batch), return_auxiliary=True)
    for task in ("ctr", "dislike"):
        assert_close(there[task], here[task], 0.0)
        change = there["auxiliary"][task] - here["auxiliary"][task]
        assert np.abs(change).max() > 1e-2
    assert set(model(batch)) == {"ctr", "dislike"}
    plain = example()
    assert np.abs(plain(moved(batch))["ctr"] - plain(batch)["ctr"]).max() > 1e-3


def test_one_bias_is_added_to_the_logits_of_all_towers():
    batch = random_batch(small_schema())
    for head, sign in ((True, 1.0), (False, -1.0)):
        outputs = example(**BIAS, dislike_head=head)(batch, return_auxiliary=True)
        bias = {t: outputs["auxiliary"][t] - outputs[t] for t in ("ctr", "dislike")}
        assert_close(bias["dislike"], sign * bias["ctr"], 1e-5)


def cross_entropy(logits, labels, valid):
    """Mean over the valid candidates."""
    losses = np.logaddexp(0.0, np.where(labels > 0, -logits, logits))
    return (losses * valid).sum() / valid.sum()


@pytest.mark.parametrize(
    "more", [{}, {"dislike_head": True}, {"dislike_protocol": "dislike_label"}], ids=str
)
def test_training_descends_the_cross_entropies_with_and_without_bias(more):
    model = example(**BIAS, **more)
    batch = random_batch(small_schema())
    labels = random_labels(batch)
    count = batch["num_candidates"].numpy()
    valid = np.arange(batch["item_id"].shape[1])[None] < count[:, None]
    outputs = model(batch, return_auxiliary=True)
    trained = {"dislike_head": ("ctr", "dislike"), "dislike_protocol": ("dislike",)}
    tasks = trained.get(next(iter(more), ""), ("ctr",))
    served, biased = (
        sum(cross_entropy(logits[task].numpy(), labels[task].numpy(), valid) for task in tasks)
        for logits in (outputs, outputs["auxiliary"])
    )
    np.testing.assert_allclose(model.compute_loss((batch, labels)), served, rtol=1e-5)
    training = model.compute_loss((batch, labels), training=True)
    np.testing.assert_allclose(training, served + biased, rtol=1e-5)


def test_without_bias_features_training_has_one_loss_and_no_bias_tower():
    model = example()
    batch = random_batch(small_schema())
    labels = random_labels(batch)
    losses = [model.compute_loss((batch, labels), training=t) for t in (False, True)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    with_tower = example(**BIAS)
    assert len(with_tower.weights) == len(model.weights) + 4


@pytest.mark.parametrize("bias_features", [("hour",), ("duration",)])
def test_a_bias_tower_of_user_or_item_features_alone_is_trained(bias_features):
    model = example(bias_features=bias_features, bias_units=(4,))
    batch = random_batch(small_schema())
    with tf.GradientTape() as tape:
        loss = model.compute_loss((batch, random_labels(batch)), training=True)
    gradients = tape.gradient(loss, model.bias_tower.trainable_variables)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0.0 for g in gradients)


def test_a_saved_model_keeps_its_bias_tower(tmp_path):
    model = example(**BIAS)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    batch = random_batch(small_schema())
    expected = model(batch, return_auxiliary=True)
    assert_close(loaded(batch, return_auxiliary=True), expected, 1e-6)


@pytest.mark.parametrize(
    ("bias_features", "message"),
    [
        (("duratoin",), "Unknown feature 'duratoin'.*duration"),
        (("item_id",), "describes the events of history 'click'"),
    ],
)
def test_bias_features_that_cannot_be_set_apart_are_refused(bias_features, message):
    with pytest.raises(SchemaError, match=message):
        DMT(small_schema(), bias_features=bias_features)


def test_something_must_be_left_to_score_items_by():
    with pytest.raises(SchemaError, match="names every candidate feature"):
        DMT(
            Schema(context=(), candidate=(Feature("item_id", Identity(5)),)),
            bias_features=("item_id",),
        )


def test_heads_must_divide_the_width_of_an_event():
    with pytest.raises(ValueError, match="got num_heads=3 for width 8.*embedding_dim"):
        DMT(small_schema(), **{**SMALL, "num_heads": 3}).build_weights()
