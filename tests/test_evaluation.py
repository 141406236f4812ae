import json
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.conformance import assert_close
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.data.records import USER_KEY
from tfrec_feedback.evaluation import Predictions, evaluate, predict, ranking_metrics
from tfrec_feedback.models import build_model


def predictions(click, dislike, ctr, **changes):
    """Exposures of two users, two each; dislike logits are the reverse of the click logits."""
    count = len(click)
    values = {
        "labels": {"ctr": np.array(click, np.float32), "dislike": np.array(dislike, np.float32)},
        "logits": {"ctr": np.array(ctr, np.float32), "dislike": -np.array(ctr, np.float32)},
        "users": np.arange(count) // 2,
        "weights": np.ones(count, np.float32),
        "history": np.zeros(count, np.int64),
        "clicks": np.zeros(count, np.int64),
        "request_size": np.full(count, 2),
    }
    return Predictions(**{**values, **changes})


# User 0 clicked the better item and disliked the other, user 1 clicked the better item.
FOUR = ([1, 0, 1, 0], [0, 1, 0, 0], [2.0, 1.0, 0.0, -1.0])


def test_auc_counts_all_pairs_and_gauc_those_of_a_user():
    metrics = ranking_metrics(predictions(*FOUR))
    # Clicks 2 and 0 against 1 and -1: three of four pairs are in order; both users' own are.
    assert metrics["ctr_auc"] == 0.75
    assert metrics["ctr_gauc"] == 1.0
    # Dislike logits -2, -1, 0, 1: the disliked -1 stands above one of three.
    assert metrics["dislike_auc"] == pytest.approx(1 / 3)
    # Only user 0 has a dislike, and it stands above his click.
    assert metrics["dislike_gauc"] == 1.0


def test_the_report_counts_exposures_users_and_positives():
    report = evaluate(predictions(*FOUR))
    assert (report["exposures"], report["users"]) == (4, 2)
    assert report["tasks"]["ctr"]["positives"] == 2
    assert report["tasks"]["dislike"]["positives"] == 1
    assert report["tasks"]["ctr"]["one_class_users"] == 0
    assert report["tasks"]["dislike"]["one_class_users"] == 1
    assert report["tasks"]["dislike"]["one_class_share"] == 0.5


def test_dislikes_are_also_ranked_against_clicks_alone():
    # Of the dislike logits -2 (click), -1 (dislike), 0 (click), one click stands below.
    tasks = evaluate(predictions(*FOUR))["tasks"]
    assert tasks["dislike"]["auc_against_clicks"]["value"] == 0.5
    assert "auc_against_clicks" not in tasks["ctr"]


def test_intervals_hold_their_value():
    report = evaluate(predictions(FOUR[0] * 5, FOUR[1] * 5, FOUR[2] * 5), confidence=0.9)
    interval = report["tasks"]["ctr"]["auc"]
    assert report["confidence"] == 0.9
    assert 0 < interval["low"] < interval["value"] == 0.75 < interval["high"] < 1


def test_log_loss_is_weighted_by_the_sampling_rate():
    # Logits ln 3 are a probability of 3/4: losses ln(4/3) where clicked, ln 4 where not.
    weights = np.array([1.0, 3.0])
    report = evaluate(predictions([1, 0], [0, 0], [math.log(3)] * 2, weights=weights))
    expected = (math.log(4 / 3) + 3 * math.log(4)) / 4
    assert report["tasks"]["ctr"]["log_loss"] == pytest.approx(expected)
    # Both rows share a bin: |3/4 - 1/2|.
    assert report["tasks"]["ctr"]["calibration_error"] == pytest.approx(0.25)


def test_slices_part_the_exposures_by_kind_of_request():
    report = evaluate(
        predictions(
            [1, 0, 1, 0, 1, 0],
            [0] * 6,
            [2.0, 1.0, 0.0, 1.0, 3.0, 3.0],
            history=np.array([0, 0, 1, 4, 5, 30]),
            clicks=np.array([0, 0, 0, 4, 5, 20]),
            request_size=np.array([1, 2, 4, 5, 9, 10]),
        )
    )
    slices = report["slices"]
    counts = {k: {n: s["exposures"] for n, s in v.items()} for k, v in slices.items()}
    assert counts["history length"] == {"0": 2, "1-4": 2, "5-29": 1, "30+": 1}
    assert counts["request size"] == {"1": 1, "2-4": 2, "5-9": 2, "10+": 1}
    assert counts["cold users"] == {"no history": 2, "no clicks": 3}
    # A click of 2 above 1, and a click of 0 below 1.
    assert slices["history length"]["0"]["ctr_auc"] == 1.0
    assert slices["history length"]["1-4"]["ctr_auc"] == 0.0
    assert slices["history length"]["5-29"]["ctr_auc"] is None
    assert slices["cold users"]["no clicks"]["ctr_auc"] == 0.5


@pytest.mark.parametrize(
    "given",
    [([0, 0], [0, 0], [1.0, 2.0]), ([1, 1], [0, 0], [1.0, 2.0]), ([1], [0], [800.0])],
    ids=["no positives", "no negatives", "one exposure"],
)
def test_what_is_undefined_is_null_and_the_report_is_json(given):
    report = evaluate(predictions(*given))
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text) == report
    assert report["tasks"]["ctr"]["auc"] == {"value": None, "low": None, "high": None}
    assert report["tasks"]["ctr"]["gauc"]["value"] is None
    assert report["tasks"]["dislike"]["auc_against_clicks"]["value"] is None
    assert report["tasks"]["ctr"]["log_loss"] >= 0


def test_nan_logits_are_refused():
    with pytest.raises(ValueError, match="diverged"):
        evaluate(predictions([1, 0], [0, 0], [math.nan, 0.0]))


def test_predictions_are_the_models_logits_of_every_valid_candidate(tiny_data):
    model = build_model("dfn", tiny_data.schema(), embedding_dim=4, num_heads=1)
    dataset = request_dataset(tiny_data, "test", 8, metadata=True)
    told = []
    scored = predict(model, dataset, told.append)
    expected = {"ctr": [], "dislike": []}
    labels, sizes, history, users = [], [], [], []
    for features, truth, _, identity in dataset:
        logits = model(features)
        for r, size in enumerate(features["num_candidates"].numpy()):
            for task, values in expected.items():
                values += logits[task][r, :size].numpy().tolist()
            labels += truth["ctr"][r, :size].numpy().tolist()
            sizes += [size] * size
            lengths = [features[f"{h.name}_length"][r] for h in model.schema.histories]
            history += [sum(int(length) for length in lengths)] * size
            users += [identity["user_key"].numpy()[r]] * size
    split = tiny_data.splits["test"]
    assert sum(told) == split.requests
    assert len(scored.users) == len(labels) == split.candidates
    assert_close(scored.logits, {t: np.array(x, np.float32) for t, x in expected.items()}, 1e-5)
    assert scored.labels["ctr"].tolist() == labels
    assert scored.request_size.tolist() == sizes
    assert scored.history.tolist() == history
    assert len(set(zip(scored.users.tolist(), users, strict=True))) == len(set(users))


def test_a_split_without_requests_is_refused(tiny_data):
    model = build_model("dfn_no_feedback", tiny_data.schema(), embedding_dim=4)
    dataset = request_dataset(tiny_data, "test", 8, metadata=True, paths=[])
    with pytest.raises(ValueError, match="holds no requests"):
        predict(model, dataset)


def test_users_are_told_apart_by_ids_in_any_script(tiny_data):
    def renamed(features, labels, weights, identity):
        key = tf.strings.join(["用户", identity[USER_KEY]])
        return features, labels, weights, {**identity, USER_KEY: key}

    model = build_model("dfn_no_feedback", tiny_data.schema(), embedding_dim=4, deep_units=[2])
    dataset = request_dataset(tiny_data, "test", 8, metadata=True)
    plain, other = predict(model, dataset), predict(model, dataset.map(renamed))
    np.testing.assert_array_equal(other.users, plain.users)
