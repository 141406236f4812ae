"""Training steps whose dense part is one program, compiled by XLA, one step or several at once.

The rows of a batch are gathered before it and updated after it, so a step's time does not grow
with the embedding table; forward pass, gradients and Adam's update of all dense weights are
between. XLA compiles once a shape of the batch, which takes seconds.

Of a small batch, what surrounds the program costs as much as the program. `compiled_steps` pays
it once for several batches: the rows that any of them looks up become a small table of its own,
the program takes the steps one after another on that, and the rows go back in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.given_vectors import all_rows, with_vectors
from tfrec_feedback.optimizers import LazyAdam

_SIZES = [2**n for n in range(31)]


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
    _build(model)
    batch, table = (model.encode(inputs[0]), *inputs[1:]), model.embedding.embeddings

    @tf.function(jit_compile=True)
    def descend(vectors: tf.Tensor, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return _descend(model, vectors, batch)

    rows = all_rows(batch[0], _groups(model))
    loss, of_vectors = descend(tf.gather(table, rows), batch)
    # Counts the step as well.
    gradient = tf.IndexedSlices(of_vectors, rows, tf.shape(table))
    model.optimizer.apply_gradients([(gradient, table)])
    return loss


def compiled_steps(model: Any, batches: Sequence[Any]) -> tf.Tensor:
    """Takes a step on each batch in turn, in one program; returns the mean of their losses.

    The steps are those that `compiled_step` would take on one batch after another. Batches are
    padded to one shape, the largest among them on every axis.

    Args:
        model: as of `compiled_step`.
        batches: each as of `compiled_step`.
    """
    _build(model)
    optimizer, steps = model.optimizer, len(batches)
    encoded = [(model.encode(features), *rest) for features, *rest in batches]
    stacked = tf.nest.map_structure(_stacked, *encoded)
    parts = [tf.reshape(stacked[0][f"{group}_rows"], [steps, -1]) for group in _groups(model)]
    rows = tf.concat(parts, axis=1)
    own_rows, places = tf.unique(tf.reshape(rows, [-1]))
    # XLA compiles for every size of this table as well: there are few powers of two.
    size = tf.gather(_SIZES, tf.searchsorted(_SIZES, [tf.size(own_rows)]))[0]
    padded = tf.pad(own_rows, [[0, size - tf.size(own_rows)]])
    table = optimizer.table_of(model.embedding.embeddings)

    @tf.function(jit_compile=True)
    def descend_all(own: list[tf.Tensor], places: Any, copies: Any, batches: Any) -> Any:
        total = tf.constant(0.0)
        for step in tf.range(steps):
            batch = tf.nest.map_structure(lambda x, i=step: x[i], batches)
            of_rows = [tf.gather(part, places[step]) for part in own]
            loss, of_vectors = _descend(model, of_rows[0], batch)
            # Every copy of a row gets the sum over all of them, and so moves to the same place.
            summed = tf.math.unsorted_segment_sum(of_vectors, copies[step], len(places[step]))
            moved = optimizer.moved_rows(of_rows, tf.gather(summed, copies[step]))
            at = places[step][:, tf.newaxis]
            own = [
                tf.tensor_scatter_nd_update(part, at, new)
                for part, new in zip(own, moved, strict=True)
            ]
            optimizer.iterations.assign_add(1)
            total += loss
        return total / steps, own

    loss, moved = descend_all(
        [tf.gather(part, padded) for part in table],
        tf.reshape(places, [steps, -1]),
        tf.stack([tf.unique(one).idx for one in tf.unstack(rows)]),
        stacked,
    )
    for part, new in zip(table, moved, strict=True):
        part.scatter_update(tf.IndexedSlices(new[: tf.size(own_rows)], own_rows))
    return loss


def train_function(model: Any) -> Callable[[Any], dict[str, tf.Tensor]]:
    """Returns what `fit` calls with an iterator, for a model that `can_compile`.

    Every call takes `model.steps_per_execution` steps, which Keras lowers for an epoch's last.
    """

    @tf.function(reduce_retracing=True)
    def several(iterator: Any, steps: int) -> tf.Tensor:
        return compiled_steps(model, [next(iterator) for _ in range(steps)])

    def take(iterator: Any) -> dict[str, tf.Tensor]:
        steps = int(model.steps_per_execution)
        loss = several(iterator, steps)
        model._train_counter.assign_add(steps)
        return model.step_results(loss, tf.constant(0.0))

    return take


def _stacked(*parts: tf.Tensor) -> tf.Tensor:
    """Stacks tensors of one rank, padded with 0 to the largest on every axis.

    The padding is requests without candidates, candidates beyond a request's number and events
    beyond its length: nothing that moves a weight.
    """
    shapes = tf.stack([tf.shape(part) for part in parts])
    missing = tf.reduce_max(shapes, axis=0) - shapes
    padded = [
        tf.pad(part, tf.stack([tf.zeros_like(more), more], axis=1))
        for part, more in zip(parts, tf.unstack(missing), strict=True)
    ]
    static = tf.TensorShape(parts[0].shape)
    for part in parts[1:]:
        static = static.most_specific_compatible_shape(part.shape)
    return tf.ensure_shape(tf.stack(padded), [len(parts), *static])


def _build(model: Any) -> None:
    """Creates weights and moments, of a model that has none yet."""
    with tf.init_scope():
        if not model.embedding.built:
            model.build_weights()
        model.optimizer.build(model.trainable_variables)


def _groups(model: Any) -> list[str]:
    """The groups of fields whose rows a step gathers."""
    return ["context", "candidate", *model.embedding.histories]


def _descend(model: Any, vectors: tf.Tensor, batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves the dense weights; returns the loss, and the gradient of the batch's vectors."""
    table, optimizer = model.embedding.embeddings, model.optimizer
    dense = [variable for variable in model.trainable_variables if variable is not table]
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        given = with_vectors(batch[0], _groups(model), vectors)
        loss = model.objective((given, *batch[1:]), training=True).loss
    *gradients, of_vectors = tape.gradient(loss, [*dense, vectors])
    optimizer.begin_step()
    for gradient, variable in zip(gradients, dense, strict=True):
        optimizer.update_step(gradient, variable)
    return loss, of_vectors
