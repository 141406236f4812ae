"""GMF, NeuMF, CDAE, NMTR and NR: their equations, and what all recommenders must do."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import ITEMS, random_batch, random_labels, small_schema
from tests.layers.conformance import assert_close
from tests.models.conformance import check_model, perturbed
from tfrec_feedback.catalogue import catalogue
from tfrec_feedback.losses import Reweighted, Truncated
from tfrec_feedback.models import RECOMMENDERS, build_model, model_parameters
from tfrec_feedback.models.base import AUXILIARY
from tfrec_feedback.schema import Schema, SchemaError

SMALL = {
    "gmf": {"embedding_dim": 4},
    "neumf": {"embedding_dim": 2, "num_layers": 2},
    "cdae": {"embedding_dim": 4},
    "nmtr": {"embedding_dim": 4},
    "nr": {"embedding_dim": 4},
}


def small(name, schema=None, **params):
    tf.keras.utils.set_random_seed(0)
    schema = small_schema() if schema is None else schema
    return perturbed(build_model(name, schema, **{**SMALL[name], **params}))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_every_recommender_is_tested():
    assert set(SMALL) == set(RECOMMENDERS)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("gmf", {}),
        ("gmf", {"loss": {"name": "tce", "num_steps": 10}}),
        ("gmf", {"loss": {"name": "rce", "beta": 0.2}}),
        ("gmf", {"loss": {"base": "bpr", "name": "tce"}}),
        ("gmf", {"loss": {"base": "square"}}),
        ("gmf", {"dislike_head": True}),
        ("neumf", {}),
        ("cdae", {}),
        ("cdae", {"tied": True, "activation": "tanh"}),
        ("nmtr", {}),
        ("nmtr", {"scorer_units": 3, "cascade": "average"}),
        ("nr", {}),
    ],
)
def test_conformance(name, params, tmp_path):
    check_model(name, tmp_path, **{**SMALL[name], **params})


def test_gmf_is_its_equation():
    model = small("gmf")
    batch = model.encoder(random_batch(small_schema()))
    table = model.embedding.embeddings.numpy()
    kernel, bias = (weight.numpy() for weight in model._click_output.weights)
    users = table[batch["context_rows"].numpy()[:, 0]]
    items = table[batch["candidate_rows"].numpy()[:, :, 0]] * batch["candidate_weights"].numpy()
    expected = np.einsum("rd,rnd,d->rn", users, items, kernel[:, 0]) + bias
    assert_close(model(batch)["ctr"], expected, 1e-6)


def test_neumf_is_its_equation():
    model = small("neumf")
    batch = model.encoder(random_batch(small_schema()))
    user, item = batch["context_rows"].numpy()[:, 0], batch["candidate_rows"].numpy()[:, :, 0]
    weight = batch["candidate_weights"].numpy()
    shallow, wide = (e.embeddings.numpy() for e in (model.embedding, model.deep_embedding))
    assert wide.shape[1] == 4
    product = shallow[user][:, None] * shallow[item] * weight
    pair = np.broadcast_to(wide[user][:, None], (*item.shape, 4))
    hidden = np.concatenate([pair, wide[item] * weight], -1)
    for kernel, bias in zip(*[iter(w.numpy() for w in model.deep.weights)] * 2, strict=True):
        hidden = np.maximum(hidden @ kernel + bias, 0.0)
    kernel, bias = (weight.numpy() for weight in model._click_output.weights)
    expected = (np.concatenate([product, hidden], -1) @ kernel)[..., 0] + bias
    assert_close(model(batch)["ctr"], expected, 1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_cdae_is_its_equation(tied):
    model = small("cdae", tied=tied)
    batch = model.encoder(random_batch(small_schema(), 6))
    inputs = model.embedding.embeddings.numpy()
    outputs = inputs if tied else model.output_embedding.embeddings.numpy()
    logits = model(batch)["ctr"].numpy()
    lengths = batch["click_length"].numpy()
    assert 0 in lengths
    for r, count in enumerate(batch["num_candidates"].numpy()):
        hidden = model.hidden_bias.numpy() + inputs[batch["context_rows"].numpy()[r, 0], :4]
        for row in batch["click_rows"].numpy()[r, : lengths[r], 0]:
            hidden = hidden + inputs[row, :4]
        for n in range(count):
            item = outputs[batch["candidate_rows"].numpy()[r, n, 0]]
            expected = sigmoid(hidden) @ item[:4] + item[4]
            np.testing.assert_allclose(logits[r, n], expected, rtol=1e-5, atol=1e-6)


def test_cdaes_output_weights_are_of_items_alone():
    model = small("cdae")
    schema = model.schema
    rows = schema.feature("item_id").num_rows
    assert model.output_embedding.embeddings.shape[0] == rows
    assert model.embedding.embeddings.shape[0] == rows + schema.feature("user_id").num_rows


def test_corruption_drops_clicks_in_training_alone_and_keeps_their_mean():
    model = small("cdae", corruption=0.5, activation="linear")
    batch = random_batch(small_schema(), 1, seed=4)
    assert batch["click_length"][0] > 1
    expected = model(batch)["ctr"].numpy()
    drawn = [model(batch, training=True)["ctr"].numpy() for _ in range(800)]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
    np.testing.assert_allclose(np.mean(drawn, axis=0), expected, atol=4 * np.std(drawn) / 800**0.5)


@pytest.mark.parametrize(("cascade", "expected"), [("additive", 0.768525), ("average", 0.657010)])
def test_nmtr_adds_its_levels_up_as_in_the_worked_example(cascade, expected):
    model = small("nmtr", embedding_dim=1, cascade=cascade)
    batch = model.encoder(random_batch(small_schema(), 1, num_candidates=1))
    table = np.ones_like(model.embedding.embeddings.numpy())
    table[:, -1] = 0.1  # b_i
    model.embedding.embeddings.assign(table)
    for scorer, value in zip(model.scorers, (0.4, 0.6), strict=True):
        scorer.weights[0].assign([[value]])  # f_r, as p * q = 1
    outputs = model(batch, return_auxiliary=True)
    assert float(tf.sigmoid(outputs[AUXILIARY][0, 0])) == pytest.approx(0.622459, abs=1e-6)
    assert float(tf.sigmoid(outputs["ctr"][0, 0])) == pytest.approx(expected, abs=1e-6)


def test_nmtr_learns_level_1_from_all_clicks_and_level_2_from_those_that_satisfy():
    model = small("nmtr", click_share=0.3)
    features = random_batch(small_schema(), 3)
    labels = random_labels(features)
    encoded = model.encode(features)
    outputs = model(encoded, training=True, return_auxiliary=True)
    size = outputs["ctr"].shape[1]
    valid = np.arange(size)[None] < encoded["num_candidates"].numpy()[:, None]
    either = np.maximum(labels["ctr"], labels["dislike"])[valid]
    terms = [
        np.mean(np.logaddexp(0, -s) * y + np.logaddexp(0, s) * (1 - y))
        for s, y in (
            (outputs[AUXILIARY].numpy()[valid], either),
            (outputs["ctr"].numpy()[valid], labels["ctr"].numpy()[valid]),
        )
    ]
    loss = model.compute_loss((features, labels), training=True)
    assert float(loss) == pytest.approx(0.3 * terms[0] + 0.7 * terms[1], rel=1e-5)


@pytest.mark.parametrize(
    ("clicks", "dislikes", "expected"),
    [
        # complete, skip, unobserved, unobserved
        ([1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.3, 0.1, 0.1]),
        # without a skip, its 0.3 goes to the others as 5 to 2
        ([1, 1, 0, 0], [0, 0, 0, 0], [0.5 / 1.4, 0.5 / 1.4, 0.2 / 1.4, 0.2 / 1.4]),
        ([0, 0, 0, 0], [0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_nr_gives_each_stratum_its_weight(clicks, dislikes, expected):
    labels = {
        "ctr": tf.constant([clicks], tf.float32),
        "dislike": tf.constant([dislikes], tf.float32),
    }
    share = tf.constant([[0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(small("nr").stratified(labels, share)[0], expected, rtol=1e-6)


def test_nr_weighs_its_strata_for_clicks_and_not_for_a_dislike_head():
    model = small("nr", dislike_head=True)
    features = random_batch(small_schema(), 3)
    labels = random_labels(features)
    logits = model(features)
    share = tf.fill(labels["ctr"].shape, 1.0 / tf.size(labels["ctr"], tf.float32))
    clicks, dislikes = (
        tf.nn.sigmoid_cross_entropy_with_logits(labels[task], logits[task])
        for task in ("ctr", "dislike")
    )
    expected = tf.reduce_sum(model.stratified(labels, share) * clicks + share * dislikes)
    found = model.task_loss(logits, labels, share)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("weights", [(0.8, 0.2), (0.9, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_nr_takes_weights_that_leave_nothing_for_the_rest(weights):
    complete, skip = weights
    model = build_model("nr", small_schema(), complete_weight=complete, skip_weight=skip)
    assert model.strata_weights == (complete, skip, pytest.approx(0.0, abs=1e-9))
    assert min(model.strata_weights) >= 0.0


def test_nr_leaves_padding_out_and_survives_an_empty_batch():
    model = small("nr")
    labels = {"ctr": tf.constant([[1.0, 1.0, 0.0]]), "dislike": tf.zeros([1, 3])}
    weights = model.stratified(labels, tf.constant([[0.5, 0.0, 0.5]]))
    assert weights[0, 1] == 0.0
    assert float(tf.reduce_sum(weights)) == pytest.approx(1.0)
    nothing = model.stratified(labels, tf.zeros([1, 3]))
    np.testing.assert_array_equal(nothing, np.zeros([1, 3]))


@pytest.mark.parametrize("name", SMALL)
def test_the_whole_catalogue_is_scored_as_candidates_are(name):
    model = small(name)
    ids, rows = catalogue(model.schema)
    assert ids.tolist() == list(ITEMS)
    batch = random_batch(small_schema(), 4)
    everything = {**batch, "item_id": tf.constant(np.tile(ids, (4, 1)))}
    everything["num_candidates"] = tf.fill([4], np.int64(len(ids)))
    encoded = model.encoder({**batch, "item_id": batch["item_id"][:, :0]})
    scores = tf.function(model.catalogue_logits)(encoded, tf.constant(rows))
    assert_close(scores, model(everything)["ctr"], 1e-5)


def test_a_recommender_reads_ids_alone_and_cdae_the_clicks():
    assert [spec.name for spec in small("gmf").schema.inputs()] == [
        "user_id",
        "item_id",
        "num_candidates",
    ]
    assert [h.features for h in small("cdae").schema.histories] == [("item_id",)]


def test_a_schema_without_ids_or_clicks_is_refused():
    schema = small_schema()
    with pytest.raises(SchemaError, match=r"single-valued features 'user_id' and 'item_id'"):
        build_model("gmf", schema.without(["user_id"]))
    with pytest.raises(SchemaError, match=r"CDAE reads the history 'click'"):
        build_model("cdae", schema.without(["click"]))
    clicks_alone = dataclasses.replace(schema, tasks=schema.tasks[:1])
    for name in ("nmtr", "nr"):
        with pytest.raises(ValueError, match="a task 'dislike'"):
            build_model(name, clicks_alone)
    assert isinstance(clicks_alone, Schema)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("nmtr", {"cascade": "product"}, "cascade must be one of"),
        ("nmtr", {"click_share": 1.0}, "click_share must be in"),
        ("nmtr", {"dislike_head": True}, "expected dislike_head=False"),
        ("nmtr", {"dislike_protocol": "dislike_label"}, "dislike_protocol='one_minus_ctr'"),
        ("nr", {"complete_weight": 0.8, "skip_weight": 0.3}, "nor above 1 together"),
        ("nr", {"complete_weight": 0.8, "skip_weight": float("nan")}, "nor above 1 together"),
        ("neumf", {"num_layers": 0}, "num_layers must be at least 1"),
    ],
)
def test_wrong_options_are_named(name, params, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, small_schema(), **params)


def test_drop_rates_are_of_the_batch_for_recommenders_and_of_positives_for_impressions():
    loss = {"name": "tce"}
    assert small("gmf", loss=loss).click_loss.drop_base == "batch"
    chosen = {**loss, "drop_base": "positives"}
    assert small("gmf", loss=chosen).click_loss.drop_base == "positives"
    dfn = build_model("dfn", small_schema(), embedding_dim=4, num_heads=2, loss=loss)
    assert dfn.click_loss.drop_base == "positives"


def test_the_loss_is_an_option_of_every_model():
    assert "loss" in model_parameters("gmf")
    assert "loss" in model_parameters("dumn")
    model = small("gmf", loss={"name": "tce", "max_rate": 0.1})
    assert isinstance(model.click_loss, Truncated)
    assert isinstance(small("gmf", loss={"name": "rce"}).click_loss, Reweighted)
    assert model.get_config()["loss"] == {"name": "tce", "max_rate": 0.1}
    with pytest.raises(ValueError, match=r"max_rate"):
        small("gmf", loss={"name": "rce", "max_rate": 0.1})
    for base in ("cross_entropy", "bpr"):
        with pytest.raises(ValueError, match=r"'ce' has no option 'drop_base'.*one of 'tce'"):
            small("gmf", loss={"base": base, "drop_base": "batch"})
    with pytest.raises(ValueError, match=r"loss.base must be one of .* 'square'"):
        small("gmf", loss={"base": "squared"})
    with pytest.raises(ValueError, match=r"model.dislike_weight=1"):
        build_model("dfn", small_schema(), embedding_dim=4, loss={"base": "bpr"})
    with pytest.raises(ValueError, match="loss acts on clicks"):
        small("gmf", loss={"name": "rce"}, dislike_protocol="dislike_label")


def test_the_drop_rate_follows_the_optimiser_steps():
    model = small("gmf", loss={"name": "tce", "max_rate": 0.2, "num_steps": 4})
    batch = random_batch(small_schema(), 8)
    model.compile(tf.keras.optimizers.Adam(0.01))
    rates = [float(model.click_loss.drop_rate())]
    data = tf.data.Dataset.from_tensors((batch, random_labels(batch)))
    for _ in range(5):
        model.fit(data, verbose=0)
        rates.append(float(model.click_loss.drop_rate()))
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.15, 0.2, 0.2], rtol=1e-6)
    model.evaluate(data, verbose=0)
    assert int(model.drop_step) == 5
    model.micro_batches = 2
    model.fit(data, verbose=0)
    assert int(model.drop_step) == 6, "once an update, not a part"


@pytest.mark.parametrize("loss", [{"name": "tce", "max_rate": 0.0}, {"name": "rce", "beta": 0.0}])
def test_dropping_and_reweighting_nothing_trains_bit_for_bit_as_cross_entropy(loss):
    def trained(**options):
        tf.keras.utils.set_random_seed(3)
        model = build_model("dfn", small_schema(), embedding_dim=4, num_heads=2, **options)
        model.compile(tf.keras.optimizers.Adam(0.01))
        batch = random_batch(small_schema(), 8)
        data = tf.data.Dataset.from_tensors((batch, random_labels(batch))).repeat(15)
        history = model.fit(data, verbose=0).history["loss"]
        return history, [w.numpy() for w in model.trainable_variables]

    history, weights = trained()
    other_history, other_weights = trained(loss=loss)
    assert history == other_history
    for one, other in zip(weights, other_weights, strict=True):
        np.testing.assert_array_equal(one, other)
