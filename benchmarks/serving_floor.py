"""A model with nothing to compute: what is left is gRPC, both sides' codecs and the checks."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from tfrec_feedback.schema import Schema

Tensors = dict[str, tf.Tensor]


def publish_blank(schema: Schema, base: Path, version: int = 1) -> Path:
    """Publishes a model that scores every candidate 0.

    Args:
        schema: of its inputs and tasks; identity encodings only.
        base: folder of its versions.
        version: its number.

    Returns:
        The folder of the version. It has one signature, `serving_default`.
    """
    specs = schema.inputs()
    inputs = {
        spec.name: tf.TensorSpec([None] * len(spec.axes), spec.dtype, spec.name) for spec in specs
    }
    candidate = next(spec.name for spec in specs if "N" in spec.axes)

    def rank(features: Tensors) -> Tensors:
        zeros = tf.zeros(tf.shape(features[candidate])[:2])
        return {task.name: zeros for task in schema.tasks}

    module = tf.Module()
    signature = tf.function(rank, input_signature=[inputs]).get_concrete_function()
    target = base / str(version)
    tf.saved_model.save(module, str(target), signatures={"serving_default": signature})
    return target
