"""Parses batches of request records into the tensors a model reads."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.data.manifest import FALSE_POSITIVE
from tfrec_feedback.data.records import (
    REQUEST_ID,
    SAMPLE_WEIGHT,
    TIMESTAMP,
    TRUTH,
    USER_KEY,
    label_key,
)
from tfrec_feedback.schema import InputSpec, Schema

Tensors = dict[str, tf.Tensor]

METADATA = {REQUEST_ID: tf.string, USER_KEY: tf.string, TIMESTAMP: tf.int64}
"""What a record says of its request beside the model's inputs."""


def _parser(spec: InputSpec) -> Any:
    dtype = tf.as_dtype(spec.dtype)
    inner = [axis for axis in spec.axes if isinstance(axis, int)]
    if {"N", "T"} & set(spec.axes):
        return tf.io.FixedLenSequenceFeature(inner, dtype, allow_missing=True)
    return tf.io.FixedLenFeature(inner, dtype)


def input_parsers(schema: Schema, samples: bool = False) -> dict[str, Any]:
    """Returns the `tf.io` parsing specs of a schema's input tensors, with its samples' or not."""
    specs = schema.training_inputs() if samples else schema.inputs()
    return {spec.name: _parser(spec) for spec in specs}


def parse_features(serialized: tf.Tensor, schema: Schema) -> Tensors:
    """Parses model inputs alone, as a server does.

    Args:
        serialized: string tensor `[R]` of request records.
        schema: what they hold.

    Returns:
        The tensors of `schema.inputs()`, padded to the longest of the batch.
    """
    return tf.io.parse_example(serialized, input_parsers(schema))


def parse_requests(
    serialized: tf.Tensor, schema: Schema, samples: bool = False, truth: bool = False
) -> tuple[Tensors, Tensors, Any, Tensors]:
    """Parses inputs, labels, weights and what identifies the requests.

    Args:
        serialized: string tensor `[R]` of request records.
        schema: what they hold.
        samples: parses the tensors of `schema.training_inputs()` rather than `schema.inputs()`.
        truth: adds which clicks were mistakes to the labels, as `false_positive` of the same
            shape: for analysis, where the records of a simulated log hold it.

    Returns:
        `(features, labels, sample_weight, metadata)`: labels are `{task: float32 [R, N]}` by the
        task's definition, weights float32 `[R, N]`, metadata `request_id`, `user_key` and
        `timestamp`, `[R]`.
    """
    sequence = tf.io.FixedLenSequenceFeature
    specs = input_parsers(schema, samples)
    inputs = list(specs)
    specs[SAMPLE_WEIGHT] = sequence([], tf.float32, allow_missing=True)
    for flag in schema.feedbacks:
        specs[label_key(flag)] = sequence([], tf.int64, allow_missing=True)
    if truth:
        specs[TRUTH] = sequence([], tf.int64, allow_missing=True)
    for name, dtype in METADATA.items():
        specs[name] = tf.io.FixedLenFeature([], dtype)
    parsed = tf.io.parse_example(serialized, specs)
    features = {name: parsed[name] for name in inputs}
    flags = {flag: parsed[label_key(flag)] > 0 for flag in schema.feedbacks}
    metadata = {name: parsed[name] for name in METADATA}
    labels = task_labels(schema, flags)
    if truth:
        labels[FALSE_POSITIVE] = tf.cast(parsed[TRUTH], tf.float32)
    return features, labels, parsed[SAMPLE_WEIGHT], metadata


def task_labels(schema: Schema, flags: Tensors) -> Tensors:
    """Returns the labels of all tasks, `{task: float32 [R, N]}`, by the tasks' definitions.

    Args:
        schema: its tasks say which flags make a label.
        flags: bool `[R, N]`, by feedback: at least `schema.feedbacks`.
    """
    labels = {}
    for task in schema.tasks:
        positive = tf.reduce_any(tf.stack([flags[f] for f in task.positive]), axis=0)
        for flag in task.negative:
            positive &= ~flags[flag]
        labels[task.name] = tf.cast(positive, tf.float32)
    return labels
