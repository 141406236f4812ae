import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, random_request, small_schema, tensors
from tests.layers.reference import softmax
from tests.layers.test_attentional_gru import gru
from tests.layers.test_interest_evolution import reference_loss
from tests.models.conformance import check_model, perturbed
from tfrec_feedback.models import base, build_model
from tfrec_feedback.models.baseline import events_of
from tfrec_feedback.models.dien import DIEN
from tfrec_feedback.schema import SchemaError

SMALL = {"embedding_dim": 3, "deep_units": (8, 4), "auxiliary_units": (4, 3)}


def build(schema=None, **params):
    """A model no part of which is silent: few rectified units could all be off."""
    tf.keras.utils.set_random_seed(1)
    model = DIEN(schema or small_schema(), **{**SMALL, "deep_activation": "tanh", **params})
    model.build_weights()
    return perturbed(model)


def dense(layer, x, activate=True):
    kernel, bias = (w.numpy() for w in layer.weights)
    return np.tanh(x @ kernel + bias) if activate else x @ kernel + bias


@pytest.mark.parametrize(
    "params",
    [
        {"histories": ("click", "unclick")},
        {"histories": ("click",), "negatives": "random", "units": 5},
    ],
)
def test_conformance(tmp_path, params):
    check_model("dien", tmp_path, **SMALL, **params)


def test_logits_equal_the_figure_computed_one_candidate_at_a_time():
    model = build(histories=("click", "dislike"))
    batch = random_batch(model.schema, 3)
    logits = model(batch)["ctr"].numpy()
    encoded = model.encode(batch)
    fields = model.embedding(encoded)
    for r in range(3):
        for n in range(int(encoded["num_candidates"][r])):
            item = fields.candidates[r, n].numpy()
            interests = []
            for history in model.histories:
                events = events_of(fields, history)[r].numpy()
                evolution = model.evolutions[history.name]
                interest = np.zeros(6)
                if len(events):
                    states = gru(model.extractions[history.name], events, np.ones(len(events)))
                    target = item[:2].reshape(-1)  # the item and its tags, as an event has them
                    a = softmax(states @ evolution.attention_kernel.numpy() @ target)
                    interest = gru(evolution._evolution, states, a)[-1]
                interests.append(interest)
            user = fields.context[r].numpy().reshape(-1)
            hidden = np.concatenate([user, item.reshape(-1), *interests])
            for layer in (model.deep._first, *model.deep._deeper):
                hidden = dense(layer, hidden)
            expected = dense(model._click_output, hidden, activate=False)[0]
            assert logits[r, n] == pytest.approx(expected, abs=2e-5)


def test_auxiliary_loss_is_that_of_the_clicks_against_the_users_own_unclicks():
    model = build()
    batch = random_batch(model.schema, 4, seed=1)
    fields = model.embedding(model.encode(batch))
    click, unclick = (
        [row.numpy() for row in events_of(fields, model.schema.history(name))]
        for name in ("click", "unclick")
    )
    states = [
        tf.constant(gru(model.extractions["click"], events, np.ones(len(events))))
        for events in click
    ]
    expected = reference_loss(model.next_event, states, click, unclick)
    found = model(batch, return_auxiliary=True)[base.AUXILIARY]
    assert float(found) == pytest.approx(expected, abs=1e-4)


def test_training_adds_the_weighted_auxiliary_loss_and_evaluation_does_not():
    batch = random_batch(small_schema(), 4, seed=1)
    labels = random_labels(batch)
    model = build(auxiliary_weight=0.5)
    auxiliary = float(model(batch, return_auxiliary=True)[base.AUXILIARY])
    plain = float(model.compute_loss((batch, labels)))
    trained = float(model.compute_loss((batch, labels), training=True))
    assert trained - plain == pytest.approx(0.5 * auxiliary, abs=1e-5)
    without = build(auxiliary_weight=0.0)
    assert not without.has_auxiliary_loss
    same = without.compute_loss((batch, labels), training=True)
    assert float(same) == float(without.compute_loss((batch, labels)))


def test_the_auxiliary_loss_of_a_part_weighs_as_its_candidates_do():
    share = tf.constant([[0.1, 0.1], [0.05, 0.0]])
    loss = build(auxiliary_weight=2.0).auxiliary_loss(tf.constant(3.0), {}, share)
    assert float(loss) == pytest.approx(1.5)


@pytest.mark.parametrize("negatives", ["unclick", "random"])
def test_one_user_without_history_trains_with_finite_gradients(negatives):
    model = build(negatives=negatives)
    batch = random_batch(model.schema, 1, num_candidates=1, longest=0)
    labels = random_labels(batch)

    assert float(model(batch, return_auxiliary=True)[base.AUXILIARY]) == 0.0
    with tf.GradientTape() as tape:
        loss = model.compute_loss((batch, labels), training=True)
    assert np.isfinite(float(loss))
    for gradient in tape.gradient(loss, model.trainable_variables):
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        assert np.isfinite(values.numpy()).all()


def test_the_order_of_a_history_matters():
    model = build()
    request = random_request(np.random.default_rng(3), num_candidates=2)
    click = {"item_id": [101, 102, 103], "tag": [["art"], ["music"], []]}
    backwards = {name: values[::-1] for name, values in click.items()}
    scores = []
    for history in (click, backwards):
        histories = {**request["histories"], "click": history}
        scores.append(model(tensors(model.schema, [{**request, "histories": histories}]))["ctr"])
    assert np.abs(scores[0] - scores[1]).max() > 1e-4


def test_without_unclicks_negatives_are_drawn_from_other_requests():
    own, read, given = build(), build(histories=("click",)), build(negatives="random")
    counters = [hasattr(model.next_event, "calls") for model in (own, read, given)]
    assert counters == [False, True, True]


def test_without_a_click_history_there_is_no_auxiliary_loss():
    model = build(histories=("dislike",))
    assert not model.has_auxiliary_loss
    batch = random_batch(model.schema, 2)
    assert np.isfinite(model.compute_loss((batch, random_labels(batch)), training=True))
    with pytest.raises(ValueError, match="needs a model with an auxiliary loss"):
        model(batch, return_auxiliary=True)


def test_histories_of_unequal_features_need_random_negatives():
    schema = small_schema()
    click = dataclasses.replace(schema.history("click"), features=("item_id",))
    uneven = dataclasses.replace(schema, histories=(click, *schema.histories[1:]))
    with pytest.raises(SchemaError, match="negatives='random'"):
        DIEN(uneven)
    model = build(uneven, negatives="random")
    assert model.extractions["click"].units == 3
    assert model.extractions["unclick"].units == 6


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="negatives must be one of"):
        DIEN(small_schema(), negatives="likes")
    with pytest.raises(ValueError, match="auxiliary_weight must not be negative"):
        DIEN(small_schema(), auxiliary_weight=-1.0)


def test_the_registered_model_is_the_class():
    model = build_model("dien", small_schema(), **SMALL)
    assert type(model) is DIEN
    assert model.has_auxiliary_loss
    assert [history.name for history in model.histories] == list(model.extractions)
