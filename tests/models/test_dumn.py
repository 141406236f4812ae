import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, random_samples, small_schema
from tests.models.conformance import check_model, perturbed, valid_logits
from tfrec_feedback.models import MODELS, build_model, empty_request
from tfrec_feedback.schema import (
    Feature,
    FeedbackSequence,
    Identity,
    Schema,
    SchemaError,
)

TINY = {"memory_size": 8, "word_size": 6, "controller_units": 10}
SMALL = {"embedding_dim": 4, "deep_units": (12, 6), "user_memory": TINY}
ABLATIONS = sorted(name for name in MODELS if name.startswith("dumn"))


def training_batch(schema, requests=6, seed=0, **options):
    batch = random_batch(schema, requests, seed, **options)
    return {**batch, **random_samples(schema, requests, seed)}


def small(name, schema=None, **params):
    """A small model of a preset; `dumn_no_umn` keeps its None."""
    params = {**SMALL, **params}
    if name == "dumn_no_umn":
        params.pop("user_memory")
    return build_model(name, schema or small_schema(), **params)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dumn", SMALL),
        ("dumn_learned_strength", {**SMALL, "dislike_head": True, "attention_hidden": (5,)}),
        ("dumn_no_umn", {"embedding_dim": 4, "deep_units": (6,), "dropout": 0.1}),
        ("dumn_umn1", {**SMALL, "share_pair": True, "attention_scale": "head"}),
        ("dumn_pair_cross", {**SMALL, "dislike_protocol": "dislike_label"}),
        ("dfn_umn", {"embedding_dim": 4, "num_heads": 2, "user_memory": TINY}),
    ],
)
def test_conformance(name, params, tmp_path):
    check_model(name, tmp_path, **params)


def test_every_ablation_of_the_paper_has_a_preset():
    assert {
        "dumn_no_fp",
        "dumn_no_umn",
        "dumn_umn1",
        "dumn_pair_concat",
        "dumn_pair_cross",
        "dumn_pair_ffn",
        "dumn_pair_attention",
        "dumn_no_tl",
        "dumn_rs",
        "dumn_if",
        "dumn_af",
    } <= set(MODELS)


def wide_schema():
    """All-events history as well; behaviours of width 16, as with an item id alone."""
    kinds = ("click", "unclick", "like", "dislike", "all")
    return Schema(
        context=(Feature("hour", Identity(24)),),
        candidate=(Feature("item_id", Identity(50)),),
        histories=tuple(FeedbackSequence(kind, ("item_id",), 4, 2) for kind in kinds),
    )


def test_parameter_counts_are_those_of_the_method():
    """E = E_u = E_i = 16, controller 512, memory 256 x 64: sizes of the paper."""
    model = build_model("dumn", wide_schema())
    memory = model.user_memory.memory("click")
    trainable = (16 + 16) * 512 + 512 + 512 * 4 * 64 + 4 * 64
    assert sum(int(tf.size(w)) for w in memory.trainable_weights) == trainable
    assert memory.memory.shape == (256, 64)
    attention = 3 * 2 * 8 * 8 + 16 * 16 + (16 + 16 + 16)
    assert model.attentions["click"].count_params() == attention
    assert model.pairs[0].count_params() == 16 * 16 + 64 * 64
    # 4 (E + Z) = 320 numbers of interests; output network 200-80-1.
    output = (16 + 16 + 320) * 200 + 200 + 200 * 80 + 80 + 80 + 1
    layers = [*model._deep, model._click_output]
    assert sum(layer.count_params() for layer in layers) == output


def test_purification_changes_clicks_and_unclicks_alone():
    schema = small_schema()
    model = perturbed(small("dumn"))
    features = random_batch(schema, 5)
    interests = model(features, return_interests=True)["interests"]
    for implicit, explicit in (("click", "dislike"), ("unclick", "like")):
        product = np.sum(interests.short_term[implicit] * interests.pooled[explicit], axis=-1)
        np.testing.assert_allclose(product, 0.0, atol=1e-4)
        np.testing.assert_array_equal(interests.short_term[explicit], interests.pooled[explicit])
    moved = np.abs(interests.short_term["click"] - interests.pooled["click"]).max()
    assert moved > 1e-3
    plain = perturbed(small("dumn_no_fp"))(features, return_interests=True)["interests"]
    for name, vectors in plain.pooled.items():
        np.testing.assert_array_equal(plain.short_term[name], vectors)


def test_ablations_ignore_the_histories_they_leave_out():
    features = random_batch(small_schema(), 5)
    model = perturbed(small("dumn_if"))
    changed = {**features}
    for name in ("like", "dislike"):
        changed[f"{name}_length"] = tf.zeros_like(features[f"{name}_length"])
    np.testing.assert_array_equal(model(changed)["ctr"], model(features)["ctr"])
    full = perturbed(small("dumn"))
    assert np.abs(full(changed)["ctr"] - full(features)["ctr"]).max() > 1e-4


def test_all_feedback_reads_one_history_without_an_opposite():
    model = build_model("dumn_af", wide_schema(), user_memory=TINY)
    assert model.user_memory.opposites == {"all": None}
    assert model.user_memory.sampled == []
    assert np.isfinite(model(empty_request(wide_schema()))["ctr"]).all()
    with pytest.raises(SchemaError, match="--histories all"):
        small("dumn_af")


def test_one_shared_memory_takes_the_writes_of_all_feedbacks():
    model = small("dumn_umn1")
    assert len(model.user_memory.memories) == 1
    assert model.user_memory.memory("click") is model.user_memory.memory("dislike")
    assert len(small("dumn").user_memory.memories) == 4


@pytest.mark.parametrize("name", [n for n in ABLATIONS if n != "dumn_af"])
def test_a_step_writes_the_memories_once_and_only_a_step_does(name):
    schema = small_schema()
    model = small(name)
    batch = training_batch(schema)
    labels = random_labels(batch)
    memories = [] if model.user_memory is None else model.user_memory.memories
    before = [memory.memory.numpy() for memory in memories]
    model(batch, training=True)
    model.compute_loss((batch, labels), training=False)
    model.compute_loss((batch, labels), training=True)
    model.compile("sgd", run_eagerly=True)
    model.predict_on_batch(batch)
    model.test_step((batch, labels))
    for memory, state in zip(memories, before, strict=True):
        np.testing.assert_array_equal(memory.memory, state)
    model.train_step((batch, labels))
    for memory, state in zip(memories, before, strict=True):
        assert np.abs(memory.memory - state).max() > 1e-5


def test_the_memory_is_saved_and_loaded(tmp_path):
    schema = small_schema()
    model = small("dumn")
    model.compile("sgd")
    batch = training_batch(schema)
    model.train_step((batch, random_labels(batch)))
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", compile=False)
    for name in ("click", "dislike"):
        np.testing.assert_array_equal(
            loaded.user_memory.memory(name).memory, model.user_memory.memory(name).memory
        )
    assert loaded.get_config() == model.get_config()


def test_without_samples_the_loss_says_what_is_missing():
    with pytest.raises(SchemaError, match="--samples 4"):
        small("dumn", small_schema(num_samples=0))
    small("dumn_no_tl", small_schema(num_samples=0))
    batch = random_batch(small_schema())
    model = small("dumn")
    with pytest.raises(ValueError, match=r"no samples of \['click'.*samples=True"):
        model.compute_loss((batch, random_labels(batch)), training=True)


def test_one_history_of_everything_takes_a_step_too():
    schema = Schema(
        context=(Feature("hour", Identity(24)),),
        candidate=(Feature("item_id", Identity(50)),),
        histories=(FeedbackSequence("all", ("item_id",), 4, 2),),
    )
    model = build_model("dumn_af", schema, user_memory=TINY)
    before = model.user_memory.memory("all").memory.numpy()
    features = {
        "hour": tf.constant([3, 4]),
        "item_id": tf.constant([[5, 6], [7, 0]]),
        "num_candidates": tf.constant([2, 1]),
        "all_item_id": tf.constant([[1, 2], [3, 0]]),
        "all_length": tf.constant([2, 1]),
    }
    labels = {name: tf.constant([[1.0, 0.0], [1.0, 0.0]]) for name in ("ctr", "dislike")}
    model.compile("sgd")
    assert np.isfinite(model.train_step((features, labels))["loss"])
    assert np.abs(model.user_memory.memory("all").memory - before).max() > 1e-4


def test_a_part_of_a_batch_weighs_by_its_candidates():
    """Triplets as well: of twice as many candidates a part is half."""
    model = perturbed(small("dumn"))
    batch = training_batch(small_schema())
    inputs = (batch, random_labels(batch))
    own = tf.cast(tf.reduce_sum(batch["num_candidates"]), tf.float32)
    whole = model.objective(inputs, training=True).loss
    half = model.objective(inputs, training=True, instances=2.0 * own).loss
    np.testing.assert_allclose(half, whole / 2.0, rtol=1e-5)


def features_of(**features):
    """Histories of two columns; those named repeat what is given instead."""
    columns = {"click": ("item_id", "tag"), "dislike": ("item_id", "tag"), **features}
    histories = [FeedbackSequence(kind, of, 4, 2) for kind, of in columns.items()]
    return dataclasses.replace(small_schema(), histories=tuple(histories))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"user_memory": None}, "purified of the other"),
        ({"purify": False}, "triplet loss compares"),
        ({"purify": False, "user_memory": {"shared": True, "triplet_weight": 0.0}}, "shared"),
        ({"purify": False, "user_memory": None, "share_pair": True}, "joins the interests"),
    ],
)
def test_histories_of_other_features_are_not_compared_column_by_column(params, message):
    schema = features_of(dislike=("tag", "item_id"), like=("item_id", "tag"))
    kinds = ["click", "dislike", "like"]
    with pytest.raises(SchemaError, match=f"{message}.*same features in the same order"):
        build_model("dumn", schema, embedding_dim=4, histories=kinds, **params)


def test_a_memory_without_a_history_is_refused():
    with pytest.raises(ValueError, match="user_memory remembers internal interactions"):
        build_model("dfn_no_feedback", small_schema(), user_memory={})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pair": "gated"}, r"pair must be one of \['gate'"),
        ({"deep_units": ()}, "deep_units needs at least one width"),
        ({"user_memory": {"memry_size": 3}}, "no option 'memry_size'.*memory_size"),
        ({"user_memory": {"mining": "hard"}}, "mining must be one of"),
        ({"user_memory": {"triplet_weight": -1.0}}, "triplet_weight must not be negative"),
        ({"num_heads": 3}, "num_heads must divide the width"),
        ({"dislike_protocol": "label"}, "dislike_protocol must be one of"),
        ({"dislike_protocol": "dislike_label", "dislike_head": True}, "no dislike_protocol"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        build_model("dumn", small_schema(), **{**SMALL, **params})


def test_options_of_a_preset_are_overridden_one_by_one():
    model = small("dumn_rs", user_memory={"memory_size": 5})
    assert model.user_memory.mining == "random"
    assert model.user_memory.memory("click").memory_size == 5


def test_the_dislike_label_protocol_learns_dislikes_and_reverses_them_for_clicks():
    schema = small_schema()
    model = small("dumn_no_umn", dislike_protocol="dislike_label")
    batch = training_batch(schema, 8)
    labels = random_labels(batch)
    model.compile(tf.keras.optimizers.Adam(0.03))
    step = tf.function(model.train_step)
    for _ in range(60):
        step((batch, labels))
    logits = valid_logits(model, batch)
    np.testing.assert_array_equal(logits["ctr"], -logits["dislike"])
    mask = np.arange(batch["item_id"].shape[1])[None] < batch["num_candidates"][:, None]
    dislikes = labels["dislike"].numpy()[mask] > 0
    assert logits["dislike"][dislikes].min() > logits["dislike"][~dislikes].max()


def test_plain_logistic_loss_counts_a_dislike_as_a_non_click():
    schema = small_schema()
    model = perturbed(small("dumn_no_umn"))
    batch = random_batch(schema)
    labels = random_labels(batch)
    logits = model(batch)["ctr"].numpy()
    mask = np.arange(logits.shape[1])[None] < batch["num_candidates"][:, None]
    terms = np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0) - logits * labels["ctr"]
    loss = model.compute_loss((batch, labels))
    np.testing.assert_allclose(loss, terms.numpy()[mask].mean(), rtol=1e-5)
