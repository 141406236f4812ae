"""Scores of golden requests by the two ways that need no server: Keras, and the SavedModel.

`python -m serving.skew` compares them with the C++ session and a running server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.parsing import parse_features
from tfrec_feedback.golden import golden_requests, to_record
from tfrec_feedback.models import FeedbackModel
from tfrec_feedback.scorer import keras_scores

Scores = dict[str, np.ndarray]
_BATCH = 8


def score_records(
    model: FeedbackModel, records: Sequence[bytes], calibrate: bool = False
) -> list[Scores]:
    """Scores request records as training and evaluation read them: tf.data, parser, Keras.

    Args:
        model: a trained feedback model.
        records: request records.
        calibrate: see `RequestScorer`.

    Returns:
        Scores `[N]` by task of every record.
    """
    # Requests of a size share a batch, or the widest would decide what all of them cost.
    order = sorted(range(len(records)), key=lambda i: len(records[i]))
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant([records[i] for i in order]))
    parsed = dataset.batch(_BATCH).map(lambda batch: parse_features(batch, model.schema))
    scores: list[Scores] = []
    for features in parsed:
        values = {t: x.numpy() for t, x in keras_scores(model, features, calibrate).items()}
        for row, count in enumerate(features["num_candidates"].numpy()):
            scores.append({task: x[row, :count] for task, x in values.items()})
    return [scores[place] for place in np.argsort(order)]


def golden_records(
    model: FeedbackModel, records: Iterable[bytes] = (), calibrate: bool = False
) -> list[bytes]:
    """Returns golden requests with the Keras model's scores, see `tfrec_feedback.golden`."""
    requests = golden_requests(model.schema, records)
    plain = [to_record(model.schema, request, None) for request in requests]
    scores = score_records(model, plain, calibrate)
    return [to_record(model.schema, *pair) for pair in zip(requests, scores, strict=True)]


def saved_model_runner(version: str | Path) -> Callable[[str, Mapping[str, np.ndarray]], Scores]:
    """Loads a published version into this process, as Python users of it do.

    Returns:
        A function of a signature's name and its arrays that gives the arrays of its outputs.
    """
    loaded = tf.saved_model.load(str(version))

    def run(signature: str, inputs: Mapping[str, np.ndarray]) -> Scores:
        tensors = {
            name: tf.constant(array, tf.string if array.dtype == object else None)
            for name, array in inputs.items()
        }
        return {name: x.numpy() for name, x in loaded.signatures[signature](**tensors).items()}

    return run
