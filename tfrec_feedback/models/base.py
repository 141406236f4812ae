"""What every feedback model shares: inputs, heads, loss, saving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrec_feedback.layers import FeatureEncoder, length_mask, sum_over_replicas
from tfrec_feedback.losses import FeedbackCrossEntropy, Truncated, feedback_type
from tfrec_feedback.models.click_losses import click_loss
from tfrec_feedback.models.denoising_monitor import DenoisingMonitor
from tfrec_feedback.models.steps import add_gradients, split_requests
from tfrec_feedback.models.user_memory_network import UserMemoryNetwork, add_sums
from tfrec_feedback.schema import Schema, SchemaError

Tensors = dict[str, tf.Tensor]
PROTOCOLS = ("one_minus_ctr", "dislike_label")
INTERESTS, AUXILIARY = "interests", "auxiliary"


class Objective(NamedTuple):
    """What one batch asks of a step: a loss to descend, and sums to write into the memories."""

    loss: tf.Tensor
    writes: dict[str, Any]


class FeedbackModel(tfrs.Model):
    """Base of the models: call it on a dict of request tensors, get logits of every candidate.

    A subclass lists its layers in `__init__` and reads like its paper's figure in `call`.

    Every task is one `tfrs.tasks.Ranking`. The click task is trained on DFN's three-part loss.
    Dislikes are predicted in one of three ways. By default the dislike logit is minus the click
    logit: one ranking serves both tasks, in opposite directions. With
    `dislike_protocol="dislike_label"` the one output is trained on the dislike label instead, and
    the click logit is minus it; feedbacks then weigh alike, and `train.monitor` must be
    `dislike_auc`. With `dislike_head` a second output is trained on dislikes.

    `loss` says what is done about clicks that were mistakes, see `click_loss`: by default nothing.
    It acts on the click task alone, in training and validation loss alike.

    A model with a user memory takes its steps as this class does in `train_step`: read, predict,
    descend, then write the memories once.

    Args:
        schema: what a request holds.
        click_weight: weight of clicks in the loss.
        unclick_weight: weight of exposures without click or dislike.
        dislike_weight: weight of dislikes. It acts on the loss; do not resample dislikes as well.
        dislike_head: trains an output of its own for dislikes.
        dislike_protocol: `"one_minus_ctr"` or `"dislike_label"`.
        output_bias: adds a bias to the click logit; the dislike head always has one.
        loss: options of `tfrec_feedback.models.click_losses.click_loss`: `name` (`"ce"`, `"tce"`,
            `"rce"`), `base`, and those of the named loss.

    Call arguments:
        features: the tensors of `schema.inputs()`, or the output of `FeatureEncoder` on them;
            for training a model with triplet losses, of `schema.training_inputs()`.
        training: enables dropout.
        return_interests: models with feedback histories only: adds `UserInterests` to the result,
            as `"interests"`.
        return_auxiliary: models with an auxiliary loss only: adds what it needs, as `"auxiliary"`.

    Returns:
        `{task: logits [R, N]}`; logits of padded candidates carry no meaning.

    Raises:
        ValueError: for wrong options, and under a Keras policy that computes in another type than
            float32.
        SchemaError: when the schema lacks a task that is trained.

    Attributes:
        reads_sessions: whether the model reads the sessions of histories; class attribute.
        reads_satisfaction: whether it is told which clicks are known not to have satisfied: their
            label is then a dislike; class attribute.
        drop_base: what the drop rate of a truncated loss is a share of, unless `loss` says:
            `"positives"` on impressions, where clicks are few; class attribute.
        drop_step: counter of optimiser steps that a truncated loss takes its drop rate from, or
            None.
        denoising_monitor: is shown every training batch and what the loss makes of it; None by
            default. Set it before the first step.
        has_auxiliary_loss: whether training adds `auxiliary_loss`.
        learned_output: whether the main output is a dense layer over the representation, or, as in
            a factorization machine, its plain sum; class attribute.
        main_task: the task whose label the main output is trained on.
        user_memory: the model's `UserMemoryNetwork`, or None.
        micro_batches: how many parts a training batch is split into; their gradients and their
            writes are summed, and applied once. Less memory, the same step, but for what looks at
            a batch as a whole: the pools of triplets and random negatives, the means of auxiliary
            losses, the statistics of Dice and batch normalisation, the strata of NR (their sizes,
            and which are there at all), and what a truncated loss drops are those of a part. That
            loss compares the clicks of a part alone, and rounds the number it drops, and the most
            that it may, part by part: where parts hold few clicks, fewer are dropped.
    """

    reads_sessions = False
    reads_satisfaction = False
    drop_base = "positives"
    has_auxiliary_loss = False
    learned_output = True

    def __init__(
        self,
        schema: Schema,
        *,
        click_weight: float = 1.0,
        unclick_weight: float = 1.0,
        dislike_weight: float = 10.0,
        dislike_head: bool = False,
        dislike_protocol: str = "one_minus_ctr",
        output_bias: bool = False,
        loss: Mapping[str, Any] | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if self.compute_dtype != "float32":
            raise ValueError(
                f"Models compute in float32, but Keras' policy asks for {self.compute_dtype}: call "
                "tf.keras.mixed_precision.set_global_policy('float32') first."
            )
        if dislike_protocol not in PROTOCOLS:
            raise ValueError(
                f"dislike_protocol must be one of {list(PROTOCOLS)}, got {dislike_protocol!r}."
            )
        if dislike_head and dislike_protocol != PROTOCOLS[0]:
            raise ValueError("dislike_head=True has an output for each task: no dislike_protocol.")
        self.schema = schema
        self.user_memory: UserMemoryNetwork | None = None
        self.micro_batches = 1
        self.encoder = FeatureEncoder(schema, name="encoder")
        self._tasks = tuple(task.name for task in schema.tasks)
        if "ctr" not in self._tasks:
            raise SchemaError(
                f"The schema needs a task named 'ctr', the click; it has {list(self._tasks)}."
            )
        self._click_output = tf.keras.layers.Dense(1, use_bias=output_bias, name="ctr_output")
        self._dislike_output = None
        self.main_task = "dislike" if dislike_protocol == "dislike_label" else "ctr"
        if self.main_task == "dislike":
            click_weight = unclick_weight = dislike_weight = 1.0
        self.drop_step = None
        self.denoising_monitor: DenoisingMonitor | None = None
        self.click_loss = click_loss(
            (click_weight, unclick_weight, dislike_weight), self.drop_base, **(loss or {})
        )
        if self.main_task == "dislike" and loss:
            raise ValueError("loss acts on clicks: not with dislike_protocol='dislike_label'.")
        if isinstance(self.click_loss, Truncated):
            self.drop_step = self.add_weight(
                "drop_step",
                (),
                tf.int64,
                initializer="zeros",
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            self.click_loss.step = self.drop_step
        self.click_task = tfrs.tasks.Ranking(self.click_loss, name="ctr")
        if (dislike_head or self.main_task == "dislike") and "dislike" not in self._tasks:
            raise SchemaError("Training on dislikes needs a task named 'dislike' in the schema.")
        if dislike_head:
            self.dislike_task = tfrs.tasks.Ranking(
                FeedbackCrossEntropy(1.0, 1.0, 1.0, reduction="sum"), name="dislike"
            )
            self._dislike_output = tf.keras.layers.Dense(1, name="dislike_output")

    @property
    def has_dislike_head(self) -> bool:
        """Whether dislikes have an output of their own."""
        return self._dislike_output is not None

    def encode(self, features: Tensors) -> Tensors:
        """Returns encoded requests, whether `features` are raw or encoded already."""
        return features if "candidate_rows" in features else self.encoder(features)

    def task_logits(self, representation: tf.Tensor, offset: tf.Tensor | None = None) -> Tensors:
        """Turns the last representation of each candidate into task logits.

        Args:
            representation: float tensor `[R, N, D]`.
            offset: what is added to the main output, `[R, N]`: the parts of a model's logit that
                have no output weights of their own. A dislike head reads it as one more number.
        """
        if self.learned_output:
            output = tf.squeeze(self._click_output(representation), -1)
        else:
            output = tf.reduce_sum(representation, -1)
        logits = self.signed_logits(output if offset is None else output + offset)
        if self._dislike_output is not None:
            if offset is not None:
                representation = tf.concat([representation, offset[..., tf.newaxis]], axis=-1)
            logits["dislike"] = tf.squeeze(self._dislike_output(representation), -1)
        return logits

    def signed_logits(self, output: tf.Tensor) -> Tensors:
        """Returns the logits of both tasks that one output gives: one is minus the other.

        Args:
            output: of the main task, `[R, N]`.
        """
        if self.main_task == "dislike":
            return {"ctr": -output, "dislike": output}
        return {"ctr": output} | ({"dislike": -output} if "dislike" in self._tasks else {})

    def long_term(
        self, short_term: Tensors, context: tf.Tensor, with_access: bool
    ) -> tuple[Tensors, dict[str, Any]]:
        """Reads the memories.

        Args:
            short_term: for each feedback, float tensor `[R, N, E]`.
            context: the user's fields, float tensor `[R, F, D]`.
            with_access: whether to prepare the write as well.

        Returns:
            What was read, `[R, N, W]` by feedback, and the accesses; nothing without memories.
        """
        if self.user_memory is None:
            return {}, {}
        user = side_by_side(context)
        if not with_access:
            return self.user_memory(short_term, user), {}
        access = self.user_memory.access(short_term, user)
        return {name: found.read for name, found in access.items()}, access

    def compute_loss(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Returns the loss of a batch, averaged over its valid candidates.

        Args:
            inputs: `(features, labels)` or `(features, labels, sample_weight)`: labels are
                `{task: [R, N]}` of 0 and 1, weights `[R, N]`.
            training: whether dropout is on and triplet losses count.

        Returns:
            float scalar.
        """
        return self.objective(inputs, training).loss

    def objective(
        self, inputs: Any, training: bool = False, instances: tf.Tensor | None = None
    ) -> Objective:
        """Returns the loss of a batch and what it would write; changes nothing.

        Args:
            inputs: as in `compute_loss`.
            training: as in `compute_loss`.
            instances: what the loss is divided by, where the batch is a part of a larger one;
                default: its own valid candidates.
        """
        features, labels, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(inputs)
        encoded = self.encode(features)
        network = self.user_memory if training else None
        options = {} if network is None else {"return_interests": True}
        if training and self.has_auxiliary_loss:
            options["return_auxiliary"] = True
        outputs = self(encoded, training=training, **options)
        valid = length_mask(encoded["num_candidates"], tf.shape(outputs["ctr"])[1])
        own = tf.reduce_sum(valid)
        instances = tf.maximum(own if instances is None else instances, 1.0)
        share = valid if sample_weight is None else valid * sample_weight
        share /= instances
        loss = self.task_loss(outputs, labels, share)
        if training and self.denoising_monitor is not None:
            self.denoising_monitor.record(encoded, labels, outputs["ctr"], share)
        if AUXILIARY in outputs:
            loss += self.auxiliary_loss(outputs[AUXILIARY], labels, share)
        if network is None:
            return Objective(loss, {})
        lengths = {n: encoded[self.schema.history(n).length] for n in network.opposites}
        triplets, writes = network.objective(outputs[INTERESTS], lengths, valid)
        return Objective(loss + triplets * own / instances, writes)

    def auxiliary_loss(self, auxiliary: Any, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns what training descends beside the losses of the tasks.

        Args:
            auxiliary: what `call` returned as `"auxiliary"`.
            labels: `{task: [R, N]}`.
            share: weight of every candidate in the mean of the batch, `[R, N]`; 0 where padded.
        """
        raise NotImplementedError(f"{type(self).__name__} has no auxiliary loss.")

    def task_loss(self, logits: Tensors, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns the losses of all tasks, summed over candidates with weights `share`."""
        loss = self.main_loss(logits, labels, share)
        if self._dislike_output is not None:
            loss += self.dislike_task(
                labels=labels["dislike"], predictions=logits["dislike"], sample_weight=share
            )
        return loss

    def main_loss(self, logits: Tensors, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns the loss of the main task, summed over candidates with weights `share`."""
        dislikes = labels.get("dislike", tf.zeros_like(labels["ctr"]))
        kinds = feedback_type(labels["ctr"], dislikes)
        if self.main_task == "dislike":
            kinds = feedback_type(dislikes, tf.zeros_like(dislikes))
        return self.click_task(
            labels=kinds, predictions=logits[self.main_task], sample_weight=share
        )

    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """One optimiser step, then one write of the memories with what the step has read.

        Replicas of a `tf.distribute` strategy divide by the candidates of all of them, and write
        the same memories.
        """
        batch = (self.encode(inputs[0]), *inputs[1:])
        parts = split_requests(batch, self.micro_batches)
        instances = tf.cast(tf.reduce_sum(batch[0]["num_candidates"]), tf.float32)
        instances = sum_over_replicas(instances)
        loss = regularization = tf.constant(0.0)
        gradients: Any = None
        writes: Any = None
        for part in parts:
            with tf.GradientTape() as tape:
                objective = self.objective(part, training=True, instances=instances)
                extra = tf.add_n(self.losses) if self.losses else tf.constant(0.0)
                extra /= len(parts) * tf.distribute.get_strategy().num_replicas_in_sync
                total = objective.loss + extra
            found = tape.gradient(total, self.trainable_variables)
            gradients = found if gradients is None else add_gradients(gradients, found)
            writes = objective.writes if writes is None else add_sums(writes, objective.writes)
            loss, regularization = loss + objective.loss, regularization + extra
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        if self.user_memory is not None:
            self.user_memory.commit(writes)
        if self.drop_step is not None:
            self.drop_step.assign_add(1)
        return self.step_results(loss, regularization)

    def step_results(self, loss: tf.Tensor, regularization: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what a step reports."""
        metrics = {metric.name: metric.result() for metric in self.metrics}
        return {
            **metrics,
            "loss": loss,
            "regularization_loss": regularization,
            "total_loss": loss + regularization,
        }

    @classmethod
    def reads(cls, schema: Schema) -> Schema:
        """Returns the part of a schema that the model looks at: all but unread sessions.

        A server would have to be sent what its model ignores.
        """
        return schema if cls.reads_sessions else schema.without_sessions()

    def build_weights(self) -> None:
        """Creates all weights by one call on a request with nothing in it."""
        self(empty_request(self.schema))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, vocabularies included."""
        schema = self.schema.with_inline_vocabularies().to_dict()
        return {**self._arguments, "schema": schema, "name": self.name}

    @staticmethod
    def arguments_of(names: dict[str, Any]) -> dict[str, Any]:
        """Returns a constructor's own arguments.

        Args:
            names: its `locals()`, before it has made any more of them.
        """
        others = ("self", "schema", "options", "__class__")
        return {name: value for name, value in names.items() if name not in others}

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


def side_by_side(fields: tf.Tensor) -> tf.Tensor:
    """Joins the vectors of all fields: `[..., F, D]` to `[..., F D]`."""
    shape = tf.shape(fields)
    width = fields.shape[-2] * fields.shape[-1]
    return tf.reshape(fields, tf.concat([shape[:-2], [width]], axis=0))


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
