"""What every feedback model shares: inputs, heads, loss, saving."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrec_feedback.layers import FeatureEncoder, length_mask
from tfrec_feedback.losses import FeedbackCrossEntropy, feedback_type
from tfrec_feedback.schema import Schema, SchemaError

Tensors = dict[str, tf.Tensor]


class FeedbackModel(tfrs.Model):
    """Base of the models: call it on a dict of request tensors, get logits of every candidate.

    A subclass lists its layers in `__init__` and reads like its paper's figure in `call`.

    Every task is one `tfrs.tasks.Ranking`. The click task is trained on DFN's three-part loss.
    Without a dislike head, the dislike logit is minus the click logit, as in the DFN and DUMN
    papers: one ranking serves both tasks, in opposite directions. With one, a second output is
    trained on the dislike label.

    Args:
        schema: what a request holds.
        click_weight: weight of clicks in the loss.
        unclick_weight: weight of exposures without click or dislike.
        dislike_weight: weight of dislikes. It acts on the loss; do not resample dislikes as well.
        dislike_head: trains an output of its own for dislikes.
        output_bias: adds a bias to the click logit; the dislike head always has one.

    Call arguments:
        features: the tensors of `schema.inputs()`, or the output of `FeatureEncoder` on them.
        training: enables dropout.

    Returns:
        `{task: logits [R, N]}`; logits of padded candidates carry no meaning.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        click_weight: float = 1.0,
        unclick_weight: float = 1.0,
        dislike_weight: float = 10.0,
        dislike_head: bool = False,
        output_bias: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.schema = schema
        self.encoder = FeatureEncoder(schema, name="encoder")
        self._tasks = tuple(task.name for task in schema.tasks)
        if "ctr" not in self._tasks:
            raise SchemaError(
                f"The schema needs a task named 'ctr', the click; it has {list(self._tasks)}."
            )
        self.click_task = tfrs.tasks.Ranking(
            FeedbackCrossEntropy(click_weight, unclick_weight, dislike_weight, reduction="sum"),
            name="ctr",
        )
        self._click_output = tf.keras.layers.Dense(1, use_bias=output_bias, name="ctr_output")
        self._dislike_output = None
        if dislike_head:
            if "dislike" not in self._tasks:
                raise SchemaError("dislike_head=True needs a task named 'dislike' in the schema.")
            self.dislike_task = tfrs.tasks.Ranking(
                FeedbackCrossEntropy(1.0, 1.0, 1.0, reduction="sum"), name="dislike"
            )
            self._dislike_output = tf.keras.layers.Dense(1, name="dislike_output")

    def encode(self, features: Tensors) -> Tensors:
        """Returns encoded requests, whether `features` are raw or encoded already."""
        return features if "candidate_rows" in features else self.encoder(features)

    def task_logits(self, representation: tf.Tensor) -> Tensors:
        """Turns the last representation of each candidate, `[R, N, D]`, into task logits."""
        click = tf.squeeze(self._click_output(representation), -1)
        logits = {"ctr": click}
        if self._dislike_output is not None:
            logits["dislike"] = tf.squeeze(self._dislike_output(representation), -1)
        elif "dislike" in self._tasks:
            logits["dislike"] = -click
        return logits

    def compute_loss(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Returns the loss of a batch, averaged over its valid candidates.

        Args:
            inputs: `(features, labels)` or `(features, labels, sample_weight)`: labels are
                `{task: [R, N]}` of 0 and 1, weights `[R, N]`.
            training: whether dropout is on.

        Returns:
            float scalar.
        """
        features, labels, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(inputs)
        logits = self(features, training=training)
        num_candidates = features["num_candidates"]
        share = length_mask(num_candidates, tf.shape(logits["ctr"])[1])
        instances = tf.maximum(tf.reduce_sum(share), 1.0)
        if sample_weight is not None:
            share *= sample_weight
        share /= instances
        dislikes = labels.get("dislike", tf.zeros_like(labels["ctr"]))
        loss = self.click_task(
            labels=feedback_type(labels["ctr"], dislikes),
            predictions=logits["ctr"],
            sample_weight=share,
        )
        if self._dislike_output is not None:
            loss += self.dislike_task(
                labels=labels["dislike"], predictions=logits["dislike"], sample_weight=share
            )
        return loss

    def build_weights(self) -> None:
        """Creates all weights by one call on a request with nothing in it."""
        self(empty_request(self.schema))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, vocabularies included."""
        schema = self.schema.with_inline_vocabularies().to_dict()
        return {**self._arguments, "schema": schema, "name": self.name}

    def remember_arguments(self, arguments: dict[str, Any]) -> None:
        """Keeps the constructor's arguments, all but the schema, for `get_config`."""
        self._arguments = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in arguments.items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FeedbackModel:
        """Builds the model from `get_config`'s output."""
        return cls(**{**config, "schema": Schema.from_dict(config["schema"])})

    def get_build_config(self) -> dict[str, Any]:
        """Says that weights are to be created; the schema knows all shapes."""
        return {"from_schema": True}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Creates the weights of a loaded model."""
        self.build_weights()


def empty_request(schema: Schema) -> Tensors:
    """Returns one request without candidates or history, every axis of length 1."""
    empty: dict[str, Any] = {"int64": 0, "float32": 0.0, "string": ""}
    return {
        spec.name: tf.fill(
            [axis if isinstance(axis, int) else 1 for axis in spec.axes],
            tf.constant(empty[spec.dtype], spec.dtype),
        )
        for spec in schema.inputs()
    }
