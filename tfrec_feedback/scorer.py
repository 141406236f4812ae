"""What a server runs: a model's scores as explicit functions of raw requests."""

from __future__ import annotations

import types
from typing import Any

import tensorflow as tf

from tfrec_feedback.catalogue import CatalogueRanker, catalogue
from tfrec_feedback.data.parsing import parse_features
from tfrec_feedback.layers import FeatureEncoder
from tfrec_feedback.losses import FeedbackCrossEntropy, Reweighted, calibrated_logits
from tfrec_feedback.models import FeedbackModel, Recommender
from tfrec_feedback.schema import InputSpec, Schema

Tensors = dict[str, tf.Tensor]

METHODS = {
    "regress": "tensorflow/serving/regress",
    "classify": "tensorflow/serving/classify",
}
"""Method names of the signatures that are not called by Predict alone."""


class CalibrationError(ValueError):
    """A model's scores cannot be turned into click rates."""


class RequestScorer(tf.Module):
    """The serving functions of a model, with the schema's names as inputs.

    All take raw values, give sigmoid scores by task, and agree:

    - `rank`: requests with N candidates, `[R, N]`;
    - `predict_rows`: one candidate a row, `[B]`;
    - `rank_examples`: serialized request records, `[R, N]`;
    - `regress` and `classify`: the same records through TensorFlow Serving's Regress and Classify
      APIs, which know one answer an Example: that of the record's first candidate, 0 where it has
      none. `regress` gives `outputs` `[R]`, the click score (or that of the first task);
      `classify` gives `classes` `[R, K]`, the names of the tasks, with their `scores` `[R, K]`.
      Meant for records of one candidate: as the API merges a context into every Example, a user
      can be sent once for all his candidates;
    - `top_k`, of recommenders: users without candidates, see `CatalogueRanker`.

    Scores of padded candidates are 0.

    Args:
        model: a trained feedback model.
        schema: the model's schema, with vocabularies in files, so that they become assets.
        k: items that `top_k` names.
        calibrate: undoes the sharpening of the reweighted loss, see `calibrated_logits`: scores
            are then click rates, in the same order.

    Raises:
        CalibrationError: for `calibrate` with a model that was trained on another loss.
    """

    def __init__(self, model: FeedbackModel, schema: Schema, k: int = 100, calibrate: bool = False):
        super().__init__(name="request_scorer")
        encoder = FeatureEncoder(schema)
        # Tracked are variables and lookup tables, not Keras layers, whose metadata a server
        # cannot use.
        self._tracked = [model.variables, encoder.lookup_tables]
        self._encode = lambda features: encoder(features)
        beta = _calibration(model) if calibrate else 0.0
        self._logits = lambda encoded: _calibrated(model, model(encoded, training=False), beta)
        self._catalogue = None
        if isinstance(model, Recommender) and catalogue(schema) is not None:
            self._catalogue = CatalogueRanker(model, encoder, schema, k, beta)
        self._schema = schema
        rows = {spec.name: _tensor_spec(spec) for spec in schema.row_inputs()}
        requests = {spec.name: _tensor_spec(spec) for spec in schema.inputs()}
        records = {"examples": tf.TensorSpec([None], tf.string, "examples")}
        # The API's own name of the input.
        examples = {"inputs": tf.TensorSpec([None], tf.string, "inputs")}
        # `rank` is traced once and called by the others: a third of the graph, two thirds of its
        # loading. Were they attributes, `tf.saved_model.save` would trace and write each of them
        # once more, beside the signatures.
        self._functions = types.SimpleNamespace(
            rank=tf.function(self._rank, input_signature=[requests]),
            predict_rows=tf.function(self._predict_rows, input_signature=[rows]),
            rank_examples=tf.function(self._rank_examples, input_signature=[records]),
            first=tf.function(self._first_candidates, input_signature=[examples["inputs"]]),
            regress=tf.function(self._regress, input_signature=[examples]),
            classify=tf.function(self._classify, input_signature=[examples]),
        )

    def rank(self, features: Tensors) -> Tensors:
        """Returns the scores of requests, see the class.

        Args:
            features: raw tensors of `schema.inputs()`.
        """
        return self._functions.rank(features)

    def _rank(self, features: Tensors) -> Tensors:
        encoded = self._encode(features)
        logits = self._logits(encoded)
        width = tf.shape(encoded["candidate_rows"])[1]
        valid = tf.sequence_mask(encoded["num_candidates"], width)
        return {task: tf.where(valid, tf.sigmoid(x), 0.0) for task, x in logits.items()}

    def _predict_rows(self, rows: Tensors) -> Tensors:
        candidate = {spec.name for spec in self._schema.inputs() if "N" in spec.axes}
        features = {
            name: value[:, tf.newaxis] if name in candidate else value
            for name, value in rows.items()
        }
        anchor = next(value for name, value in rows.items() if name in candidate)
        features["num_candidates"] = tf.ones([tf.shape(anchor)[0]], tf.int64)
        return {task: tf.squeeze(x, 1) for task, x in self.rank(features).items()}

    def _rank_examples(self, inputs: Tensors) -> Tensors:
        return self.rank(parse_features(inputs["examples"], self._schema))

    def _first_candidates(self, records: tf.Tensor) -> Tensors:
        features = parse_features(records, self._schema)
        for spec in self._schema.inputs():
            if "N" in spec.axes:
                features[spec.name] = features[spec.name][:, :1]
        features["num_candidates"] = tf.minimum(features["num_candidates"], 1)
        scores = self.rank(features)
        # Records without any candidate make a batch of width 0.
        return {t: tf.pad(x, [[0, 0], [0, 1 - tf.shape(x)[1]]])[:, 0] for t, x in scores.items()}

    def _regress(self, inputs: Tensors) -> Tensors:
        scores = self._functions.first(inputs["inputs"])
        return {"outputs": scores.get("ctr", next(iter(scores.values())))}

    def _classify(self, inputs: Tensors) -> Tensors:
        scores = self._functions.first(inputs["inputs"])
        tasks = tf.constant([list(scores)])
        return {
            "classes": tf.tile(tasks, [tf.shape(inputs["inputs"])[0], 1]),
            "scores": tf.stack(list(scores.values()), axis=1),
        }

    def signatures(self) -> dict[str, Any]:
        """Returns the concrete functions by signature name."""
        names = ("rank", "predict_rows", "rank_examples", "regress", "classify")
        functions = {name: getattr(self._functions, name) for name in names}
        if self._catalogue is not None:
            functions["top_k"] = self._catalogue.top_k
        found = {name: function.get_concrete_function() for name, function in functions.items()}
        return {"serving_default": found["rank"], **found}


def _calibration(model: FeedbackModel) -> float:
    """Returns the exponent of the loss a model was trained on, where its effect is known."""
    loss = model.click_loss
    if not isinstance(loss, Reweighted) or not isinstance(loss.base, FeedbackCrossEntropy):
        raise CalibrationError(
            "calibrate=True undoes the effect of reweighted cross entropy (loss.name='rce'); this "
            "model was trained on another loss. Export it without."
        )
    if loss.negatives != "reweighted" or loss.beta >= 1:
        raise CalibrationError(
            "calibrate=True needs loss.negatives='reweighted' and loss.beta below 1, got "
            f"{loss.negatives!r} and {loss.beta}: elsewhere the effect is not known."
        )
    return loss.beta


def keras_scores(model: FeedbackModel, features: Tensors, calibrate: bool = False) -> Tensors:
    """Returns the scores of the Keras model itself, which every export must give.

    Args:
        model: a trained feedback model.
        features: raw tensors of `schema.inputs()`.
        calibrate: see `RequestScorer`.

    Returns:
        `{task: [R, N]}`, with scores of padding as they come.
    """
    beta = _calibration(model) if calibrate else 0.0
    logits = _calibrated(model, model(features, training=False), beta)
    return {task: tf.sigmoid(x) for task, x in logits.items()}


def _calibrated(model: FeedbackModel, logits: Tensors, beta: float) -> Tensors:
    """Calibrates every output that the click loss has trained."""
    of_clicks = [task for task in logits if task == "ctr" or not model.has_dislike_head]
    return {**logits, **{task: calibrated_logits(logits[task], beta) for task in of_clicks}}


def _tensor_spec(spec: InputSpec) -> tf.TensorSpec:
    shape = [axis if isinstance(axis, int) else None for axis in spec.axes]
    return tf.TensorSpec(shape, tf.as_dtype(spec.dtype), name=spec.name)
