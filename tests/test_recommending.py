"""The road of interactions: prepared, trained, ranked, exported, served."""

import json

import numpy as np
import pytest
import tensorflow as tf

from serving.client import FeedbackClient
from serving.errors import ServingError
from serving.server import FeedbackServer
from tests.data.logs import prepared_simulation
from tests.data.ratings import write_ratings
from tests.layers.conformance import assert_close
from tests.models.conformance import perturbed
from tests.test_training import StopAt
from tfrec_feedback.config import load_config
from tfrec_feedback.data.interaction_dataset import load_interactions
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.export import export_run, publish
from tfrec_feedback.full_ranking import rank_catalogue
from tfrec_feedback.models import build_model
from tfrec_feedback.runs import load_run
from tfrec_feedback.scorer import CalibrationError, RequestScorer
from tfrec_feedback.training import train

SMALL = ["model.embedding_dim=4", "data.batch_size=32", "optimizer.learning_rate=0.02"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ratings")
    source = load_interaction_source("adt-ratings", write_ratings(folder / "log"))
    return prepare_interactions(source, folder / "data")


def config(*overrides):
    return load_config(overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module")
def run(manifest, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "gmf"
    settings = ["model.name=gmf", "train.epochs=20", "train.patience=20", "loss.name=rce"]
    train(config(*settings, "loss.beta=0.25"), manifest, run)
    return run


def test_a_recommender_learns_what_users_like(run, manifest):
    model, described = load_run(run)
    assert described["monitor"] == "ndcg_20"
    best = described["history"][described["best_epoch"]]
    assert best["ndcg_20"] == max(epoch["ndcg_20"] for epoch in described["history"])
    table = load_interactions(manifest)
    ranked = rank_catalogue(model, table, "test", 10)
    # Users rate items of their own parity high; the test split holds the highest ratings alone.
    assert ranked.hits.sum() > 1.3 * 10 / 25 * ranked.num_relevant.sum()


@pytest.mark.parametrize("name", ["neumf", "cdae", "nmtr", "nr"])
def test_every_recommender_trains_on_interactions(name, manifest, tmp_path):
    options = ["data.batch_size=8"] if name == "cdae" else []
    result = train(config(f"model.name={name}", "train.epochs=1", *options), manifest, tmp_path)
    assert {"loss", "recall_20", "ndcg_50"} <= set(result.history[0])
    assert np.isfinite(result.history[0]["loss"])


def test_known_mistakes_are_dislikes_for_those_who_are_told_alone(manifest, tmp_path):
    from tfrec_feedback.feeds import make_feed

    for name, told in (("gmf", False), ("nmtr", True)):
        model = build_model(name, manifest.schema())
        feed = make_feed(config(f"model.name={name}"), manifest, model, tmp_path)
        labels = next(iter(feed.train(0, 0)))[1]
        false = labels["false_positive"].numpy()
        assert false.any()
        np.testing.assert_array_equal(labels["dislike"], false if told else 0 * false)
        assert (labels["ctr"].numpy()[false > 0] == (0.0 if told else 1.0)).all()


def test_interrupted_training_with_a_drop_schedule_ends_as_uninterrupted(manifest, tmp_path):
    settings = config(
        *("model.name=gmf", "train.epochs=2", "train.patience=5", "train.deterministic=true"),
        *("loss.name=tce", "loss.num_steps=15", "train.checkpoint_steps=3"),
    )
    whole = train(settings, manifest, tmp_path / "whole")
    for batches in (5, 7):
        with pytest.raises(KeyboardInterrupt):
            train(settings, manifest, tmp_path / "parts", callbacks=[StopAt(batches)])
    resumed = train(settings, manifest, tmp_path / "parts")
    assert resumed.history == whole.history
    assert int(resumed.model.drop_step) == int(whole.model.drop_step) > 0
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_models_and_metrics_that_do_not_fit_the_data_are_named(manifest, tmp_path):
    with pytest.raises(ValueError, match=r"train a recommender on it \(cdae, gmf, neumf, nmtr, nr"):
        train(config("model.name=dfn_click", "model.num_heads=2"), manifest, tmp_path / "a")
    with pytest.raises(ValueError, match=r"ctr_auc' is not measured on these data"):
        train(config("model.name=gmf", "train.monitor=ctr_auc"), manifest, tmp_path / "b")
    impressions = prepared_simulation(tmp_path / "requests")
    with pytest.raises(ValueError, match=r"recall_20' is not measured on these data"):
        train(config("model.name=gmf", "train.monitor=recall_20"), impressions, tmp_path / "c")


def test_a_recommender_trains_on_impressions_as_any_model(tmp_path):
    impressions = prepared_simulation(tmp_path / "requests")
    settings = config("model.name=gmf", "train.epochs=1", "loss.name=tce", "loss.num_steps=2")
    result = train(settings, impressions, tmp_path / "run")
    assert 0.0 < result.history[0]["ctr_auc"] < 1.0
    model, _ = load_run(tmp_path / "run")
    assert [spec.name for spec in model.schema.inputs()] == [
        *("user_id", "item_id", "num_candidates")
    ]


@pytest.mark.parametrize("name", ["gmf", "neumf", "cdae"])
def test_the_served_catalogue_is_ranked_as_keras_ranks_it(name, manifest, tmp_path):
    tf.keras.utils.set_random_seed(1)
    model = perturbed(build_model(name, manifest.schema(), embedding_dim=4))
    publish(model, tmp_path / "model", version=1, k=15)
    histories = {"click": {"item_id": [3, 8, 5]}} if name == "cdae" else None
    items = manifest.schema().vocabulary("item_id")
    with (
        FeedbackServer(tmp_path / "model", "model") as server,
        FeedbackClient(server.target, "model", timeout=60) as client,
    ):
        scores = client.rank({"user_id": 2}, histories, {"item_id": list(items)})["ctr"]
        expected = sorted(range(len(items)), key=lambda i: -scores[i])
        ids, best = client.top_k({"user_id": 2}, histories)
        assert ids.tolist() == [items[i] for i in expected[:15]]
        assert_close(best, scores[expected[:15]], 1e-6)
        # Ids that are unknown to the model exclude nothing.
        left, _ = client.top_k({"user_id": 2}, histories, exclude=[*ids[:3].tolist(), 10**6], k=4)
        assert left.tolist() == ids[3:7].tolist()
        few, _ = client.top_k({"user_id": 2}, histories, exclude=items[2:])
        assert sorted(few.tolist()) == sorted(items[:2])
        with pytest.raises(ValueError, match="k must be from 1 to 15"):
            client.top_k({"user_id": 2}, histories, k=16)


def test_excluded_items_are_counted_by_length_and_not_by_their_values(manifest):
    model = perturbed(build_model("gmf", manifest.schema(), embedding_dim=4))
    scorer = RequestScorer(model, model.schema, k=5)
    top_k = scorer.signatures()["top_k"]
    users, none = tf.constant([4], tf.int64), tf.constant([0], tf.int64)
    best = top_k(user_id=users, exclude_item_id=tf.zeros([1, 1], tf.int64), exclude_length=none)
    # A server pads with the first element.
    padded = tf.repeat(best["item_id"][:, :1], 6, axis=1)
    again = top_k(user_id=users, exclude_item_id=padded, exclude_length=none)
    assert_close(again["item_id"], best["item_id"], 0)
    one = top_k(user_id=users, exclude_item_id=padded, exclude_length=none + 1)
    np.testing.assert_array_equal(one["item_id"][0, :4], best["item_id"][0, 1:])


def test_models_without_a_catalogue_say_so(tiny_version):
    with (
        FeedbackServer(tiny_version.parent, "dfn") as server,
        FeedbackClient(server.target, "dfn", timeout=60) as client,
        pytest.raises(ServingError, match="does not rank its catalogue"),
    ):
        client.top_k({"user_id": 1})


def test_calibrated_scores_are_those_of_calibrated_logits(run, manifest, tmp_path):
    model, _ = load_run(run)
    plain, calibrated = (
        RequestScorer(model, model.schema, calibrate=flag).rank for flag in (False, True)
    )
    features = {
        "user_id": tf.constant([1, 2], tf.int64),
        "item_id": tf.constant([[1, 2, 3], [4, 5, 6]], tf.int64),
        "num_candidates": tf.constant([3, 3], tf.int64),
    }
    before, after = plain(features), calibrated(features)
    logits = np.log(before["ctr"] / (1 - before["ctr"]))
    assert_close(after["ctr"], 1 / (1 + np.exp(-0.75 * logits)), 1e-5)
    assert_close(after["dislike"], 1 - after["ctr"], 1e-6)
    version = export_run(run, tmp_path / "models", version=1, calibrate=True)
    assert json.loads((version / "assets.extra/run.json").read_text())["finished"]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (None, "trained on another loss"),
        ({"name": "tce"}, "trained on another loss"),
        ({"name": "rce", "base": "square"}, "trained on another loss"),
        ({"name": "rce", "negatives": "plain"}, "needs loss.negatives='reweighted'"),
        ({"name": "rce", "beta": 1.0}, "beta below 1"),
    ],
)
def test_models_that_cannot_be_calibrated_are_refused(loss, message, manifest):
    model = build_model("gmf", manifest.schema(), embedding_dim=2, loss=loss)
    with pytest.raises(CalibrationError, match=message):
        RequestScorer(model, model.schema, calibrate=True)
