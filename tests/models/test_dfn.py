import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, random_request, small_schema, tensors
from tests.models.conformance import check_model, perturbed
from tfrec_feedback.models import build_model
from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema, SchemaError, Task

SMALL = {"embedding_dim": 8, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dfn", SMALL),
        ("dfn", {**SMALL, "dislike_head": True, "attention_dim": 16, "output_bias": True}),
        ("dfn_no_feedback", SMALL),
        ("dfn_click", {**SMALL, "history_length_fields": True, "dropout": 0.1}),
        ("dfn_internal", {**SMALL, "context_dropout": 0.1}),
        ("dfn_official_code", {"embedding_dim": 4}),
    ],
)
def test_conformance(name, params, tmp_path):
    check_model(name, tmp_path, **params)


def paper_schema():
    """m = 47 fields, one of them the item, which the histories repeat."""
    return Schema(
        context=tuple(Feature(f"field_{i}", Identity(3)) for i in range(46)),
        candidate=(Feature("item_id", Identity(10)),),
        histories=tuple(FeedbackSequence(n, ("item_id",)) for n in ("click", "unclick", "dislike")),
    )


def test_parameter_counts_are_those_of_the_paper():
    model = build_model("dfn", paper_schema())
    count = lambda layers: sum(layer.count_params() for layer in layers)  # noqa: E731
    assert count(model.internal_interactions.values()) == 49_152
    assert count(model.external_interactions.values()) == 16_514
    assert model.wide_fm_deep.count_params() == 107_056
    assert [w.shape for w in model._click_output.weights] == [(127, 1)]


def test_dislike_is_the_reverse_of_click_without_a_head():
    model = perturbed(build_model("dfn", small_schema(), **SMALL))
    logits = model(random_batch(small_schema()))
    np.testing.assert_array_equal(logits["dislike"], -logits["ctr"])


def test_dislike_head_has_an_opinion_of_its_own():
    model = perturbed(build_model("dfn", small_schema(), dislike_head=True, **SMALL))
    logits = model(random_batch(small_schema()))
    assert np.abs(logits["dislike"] + logits["ctr"]).max() > 1e-3


def test_ablations_ignore_the_histories_they_leave_out():
    schema = small_schema()
    batch = random_batch(schema)
    for name, read in {
        "dfn_no_feedback": (),
        "dfn_click": ("click",),
        "dfn_internal": ("click", "unclick", "dislike"),
        "dfn": ("click", "unclick", "dislike"),
    }.items():
        model = perturbed(build_model(name, schema, **SMALL))
        for history in ("click", "unclick", "like", "dislike"):
            emptied = {**batch, f"{history}_length": tf.zeros_like(batch["click_length"])}
            changed = np.abs(model(emptied)["ctr"] - model(batch)["ctr"]).max()
            assert (changed > 1e-6) == (history in read), (name, history)


@pytest.mark.parametrize("name", ["dfn", "dfn_official_code"])
def test_a_user_without_history_scores_alike_alone_and_beside_others(name):
    schema = small_schema()
    model = perturbed(build_model(name, schema, **(SMALL if name == "dfn" else {})))
    rng = np.random.default_rng(0)
    new, old = (random_request(rng, 3, longest=longest) for longest in (0, 7))
    alone, together = (model(tensors(schema, users))["ctr"] for users in ([new], [new, old]))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5, atol=1e-6)


def test_loss_counts_valid_candidates_once():
    schema = small_schema()
    model = perturbed(build_model("dfn", schema, **SMALL))
    batch = random_batch(schema, 5)
    labels = random_labels(batch)
    padded = {n: tf.pad(x, [[0, 0], [0, 2]]) for n, x in labels.items()}
    wide = {
        name: tf.concat([x, tf.repeat(x[:, :1], 2, axis=1)], axis=1) if x.shape.rank > 1 else x
        for name, x in batch.items()
    }
    expected = model.compute_loss((batch, labels))
    np.testing.assert_allclose(model.compute_loss((wide, padded)), expected, rtol=1e-5)
    doubled = tf.fill(labels["ctr"].shape, 2.0)
    weighted = model.compute_loss((batch, labels, doubled))
    np.testing.assert_allclose(weighted, 2 * expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dfnn", {}, "Did you mean 'dfn'"),
        ("dfn", {"num_head": 2}, "Did you mean 'num_heads'"),
        ("dfn", {"embedding_dim": 8, "attention_dim": 12}, "multiple of embedding_dim"),
        ("dfn", {"internal": ("click",), "external": ("dislike",)}, "not among the internal"),
        ("dfn", {"internal": ("clicks",), "external": ()}, "Did you mean 'click'"),
    ],
)
def test_wrong_names_are_refused_with_the_closest_known_one(name, params, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, small_schema(), **params)


def test_a_schema_without_the_click_task_is_refused():
    only_dislikes = (Task("dislike", ("dislike",)),)
    schema = Schema((), (Feature("item_id", Identity(3)),), tasks=only_dislikes)
    with pytest.raises(SchemaError, match="task named 'ctr'"):
        build_model("dfn_no_feedback", schema)
