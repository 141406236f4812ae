"""A training step whose dense part is one program, compiled by XLA.

The rows of a batch are gathered before it and updated after it, so a step's time does not grow
with the embedding table; forward pass, gradients and Adam's update of all dense weights are
between. XLA compiles once a shape of the batch, which takes seconds.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.given_vectors import all_rows, with_vectors
from tfrec_feedback.optimizers import LazyAdam


def can_compile(model: Any) -> bool:
    """Whether a step of this model, as it is set up, may be compiled with the same result."""
    optimizer = model.optimizer
    plain_step = (
        model.micro_batches == 1
        and model.user_memory is None
        and model.drop_step is None
        and model.denoising_monitor is None
        and not model.losses
    )
    return (
        plain_step
        and tf.distribute.get_strategy().num_replicas_in_sync == 1
        and isinstance(optimizer, LazyAdam)
        and not optimizer.use_ema
        and (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue) == (None,) * 3
    )


def compiled_step(model: Any, inputs: Any) -> tf.Tensor:
    """Takes one step of a model that `can_compile`; returns the loss.

    Args:
        model: a `Baseline` whose layers take `PaddedEvents`.
        inputs: `(features, labels)` or `(features, labels, sample_weight)`.
    """
    with tf.init_scope():
        if not model.embedding.built:
            model.build_weights()
        model.optimizer.build(model.trainable_variables)
    encoded, table = model.encode(inputs[0]), model.embedding.embeddings
    groups = ["context", "candidate", *model.embedding.histories]
    dense = [variable for variable in model.trainable_variables if variable is not table]

    @tf.function(jit_compile=True)
    def descend(vectors: tf.Tensor, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            given = with_vectors(batch[0], groups, vectors)
            loss = model.objective((given, *batch[1:]), training=True).loss
        *gradients, of_vectors = tape.gradient(loss, [*dense, vectors])
        for gradient, variable in zip(gradients, dense, strict=True):
            model.optimizer.update_step(gradient, variable)
        return loss, of_vectors

    rows = all_rows(encoded, groups)
    loss, of_vectors = descend(tf.gather(table, rows), (encoded, *inputs[1:]))
    # Counts the step as well.
    gradient = tf.IndexedSlices(of_vectors, rows, tf.shape(table))
    model.optimizer.apply_gradients([(gradient, table)])
    return loss
