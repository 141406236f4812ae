"""How well a model ranks: exact metrics with intervals, and by kind of request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback import metrics
from tfrec_feedback.data.records import USER_KEY

LENGTH_EDGES = (0, 1, 5, 30)
SIZE_EDGES = (1, 2, 5, 10)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Scores of every exposure of a split, in order; all arrays have one entry an exposure.

    Attributes:
        labels: 0 and 1 by task.
        logits: by task.
        users: group of the user-level metrics.
        weights: 1 / sampling rate.
        history: events in all histories of the request.
        clicks: events in its click history, 0 where the schema has none.
        request_size: candidates of the request.
    """

    labels: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]
    users: np.ndarray
    weights: np.ndarray
    history: np.ndarray
    clicks: np.ndarray
    request_size: np.ndarray


def scoring_function(model: tf.keras.Model) -> Callable[..., Any]:
    """Returns the model's logits as one graph for batches of any size."""
    return tf.function(lambda features: model(features, training=False), reduce_retracing=True)


def predict(
    model: tf.keras.Model,
    dataset: tf.data.Dataset,
    on_batch: Callable[[int], None] | None = None,
    score: Callable[..., Any] | None = None,
) -> Predictions:
    """Scores a dataset made with `metadata=True`.

    Args:
        model: a feedback model.
        dataset: batches of `(features, labels, sample_weight, metadata)`.
        on_batch: called after each batch with its number of requests.
        score: the model's `scoring_function`, to trace it once for several calls.

    Returns:
        One entry for every valid candidate.
    """
    lengths = [history.length for history in model.schema.histories]
    score = scoring_function(model) if score is None else score
    if hasattr(score, "get_concrete_function"):
        score.get_concrete_function(dataset.element_spec[0])  # one trace for batches of any size
    parts: dict[str, list[np.ndarray]] = {}
    for features, labels, weights, identity in dataset:
        size = features["num_candidates"].numpy()
        valid = np.arange(weights.shape[1])[None] < size[:, None]
        columns = {f"logit {task}": x.numpy()[valid] for task, x in score(features).items()}
        columns |= {f"label {task}": x.numpy()[valid] for task, x in labels.items()}
        columns["weights"] = weights.numpy()[valid]
        columns["users"] = np.repeat(identity[USER_KEY].numpy(), size)
        columns["request_size"] = np.repeat(size, size)
        total = sum((features[name].numpy() for name in lengths), np.zeros_like(size))
        columns["history"] = np.repeat(total, size)
        clicks = features.get("click_length", tf.zeros_like(features["num_candidates"]))
        columns["clicks"] = np.repeat(clicks.numpy(), size)
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
        if on_batch is not None:
            on_batch(len(size))
    if not parts:
        raise ValueError("The split holds no requests: nothing to evaluate.")
    joined = {name: np.concatenate(columns) for name, columns in parts.items()}
    return Predictions(
        labels={n.split(" ")[1]: x for n, x in joined.items() if n.startswith("label ")},
        logits={n.split(" ")[1]: x for n, x in joined.items() if n.startswith("logit ")},
        users=np.unique(joined["users"], return_inverse=True)[1],
        **{n: joined[n] for n in ("weights", "history", "clicks", "request_size")},
    )


def ranking_metrics(predictions: Predictions) -> dict[str, float]:
    """Returns `<task>_auc` and `<task>_gauc` of every task: what an epoch is judged by."""
    result: dict[str, float] = {}
    for task, logits in predictions.logits.items():
        labels = predictions.labels[task]
        result[f"{task}_auc"] = metrics.auc(labels, logits)
        result[f"{task}_gauc"] = metrics.grouped_auc(labels, logits, predictions.users)
    return result


def evaluate(predictions: Predictions, confidence: float = 0.95) -> dict[str, Any]:
    """Computes the full report of a split.

    Args:
        predictions: from `predict`.
        confidence: of the intervals: DeLong's for AUC, a bootstrap over users for GAUC.

    Returns:
        JSON-ready: for every task AUC and GAUC with intervals, plain GAUC, users of one class,
        log loss and calibration error; the dislike task also against clicks alone; and slices.
        Log loss is that of the labels, unweighted by the loss's feedback weights: compare it only
        between models trained with equal weights.
    """
    report: dict[str, Any] = {
        "exposures": len(predictions.users),
        "users": int(predictions.users.max()) + 1,
        "confidence": confidence,
        "tasks": {},
    }
    for task in predictions.logits:
        report["tasks"][task] = _task_report(predictions, task, confidence)
    if "dislike" in predictions.logits:
        kept = (predictions.labels["dislike"] > 0) | (predictions.labels["ctr"] > 0)
        labels = predictions.labels["dislike"][kept]
        interval = metrics.auc_interval(labels, predictions.logits["dislike"][kept], confidence)
        report["tasks"]["dislike"]["auc_against_clicks"] = _interval(interval)
    report["slices"] = {
        "history length": _slices(predictions, predictions.history, LENGTH_EDGES),
        "request size": _slices(predictions, predictions.request_size, SIZE_EDGES),
        "cold users": {
            "no history": _slice(predictions, predictions.history == 0),
            "no clicks": _slice(predictions, predictions.clicks == 0),
        },
    }
    return report


def compare(a: Predictions, b: Predictions, confidence: float = 0.95) -> dict[str, Any]:
    """Compares two models on the same exposures.

    Args:
        a: predictions of one model.
        b: predictions of the other, of the same split.
        confidence: of the interval.

    Returns:
        JSON-ready: for every task both have, `auc_difference` (a less b) and the p-value of
        DeLong's paired test, which takes exposures to be independent; `gauc_difference` with a
        paired bootstrap interval over users, which does not.

    Raises:
        ValueError: when the exposures are not the same.
    """
    report = {}
    for task in [task for task in a.logits if task in b.logits]:
        labels = a.labels[task]
        if not np.array_equal(labels, b.labels[task]) or not np.array_equal(a.users, b.users):
            raise ValueError(
                "The two models were not scored on the same exposures in the same order: score "
                "both on one prepared folder."
            )
        test = metrics.delong_test(labels, a.logits[task], b.logits[task])
        report[task] = {
            "auc_difference": _number(test.auc_a - test.auc_b),
            "p_value": _number(test.p_value),
            "gauc_difference": _interval(
                metrics.grouped_auc_difference(
                    labels, a.logits[task], b.logits[task], a.users, confidence=confidence
                )
            ),
        }
    return report


def _task_report(predictions: Predictions, task: str, confidence: float) -> dict[str, Any]:
    labels, logits = predictions.labels[task], predictions.logits[task]
    users = predictions.users
    probabilities = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -500, 500)))
    grouped = metrics.grouped_auc_report(labels, logits, users)
    return {
        "positives": int(labels.sum()),
        "auc": _interval(metrics.auc_interval(labels, logits, confidence)),
        "gauc": _interval(
            metrics.grouped_auc_interval(labels, logits, users, confidence=confidence)
        ),
        "gauc_unweighted": _number(metrics.grouped_auc(labels, logits, users, weighting="uniform")),
        "one_class_users": grouped.num_single_class,
        "one_class_share": _number(grouped.skipped_share),
        "log_loss": _number(metrics.log_loss(labels, logits, predictions.weights)),
        "calibration_error": _number(metrics.expected_calibration_error(labels, probabilities)),
    }


def _slices(predictions: Predictions, values: np.ndarray, edges: Any) -> dict[str, Any]:
    result = {}
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        name = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
        kept = (values >= low) & (values < (np.inf if high is None else high))
        result[name] = _slice(predictions, kept)
    return result


def _slice(predictions: Predictions, kept: np.ndarray) -> dict[str, Any]:
    result: dict[str, Any] = {"exposures": int(kept.sum())}
    for task, logits in predictions.logits.items():
        labels = predictions.labels[task][kept]
        result[f"{task}_auc"] = _number(metrics.auc(labels, logits[kept])) if len(labels) else None
    return result


def _interval(interval: metrics.Interval) -> dict[str, float | None]:
    return {
        "value": _number(interval.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
    }


def _number(value: float) -> float | None:
    """JSON has no NaN: an undefined metric is null."""
    return float(value) if np.isfinite(value) else None
