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

    The steps are those that `compiled_step` would take on one batch after another.

    Args:
        model: as of `compiled_step`.
        batches: of equal shapes; each as of `compiled_step`.
    """
    _build(model)
    optimizer, steps = model.optimizer, len(batches)
    encoded = [(model.encode(features), *rest) for features, *rest in batches]
    rows = [all_rows(features, _groups(model)) for features, *_ in encoded]
    own_rows, places = tf.unique(tf.concat(rows, axis=0))
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
        tf.stack([tf.unique(one).idx for one in rows]),
        tf.nest.map_structure(lambda *x: tf.stack(x), *encoded),
    )
    for part, new in zip(table, moved, strict=True):
        part.scatter_update(tf.IndexedSlices(new[: tf.size(own_rows)], own_rows))
    return loss


def train_function(model: Any) -> Callable[[Any], dict[str, tf.Tensor]]:
    """Returns what `fit` calls with an iterator, for a model that `can_compile`.

    Every call takes the model's `steps_per_execution`, by `compiled_steps` where the batches are
    of equal shapes. An epoch's last steps are fewer, and taken one by one.
    """
    steps = int(model.steps_per_execution)

    @tf.function(reduce_retracing=True)
    def one_step(batch: Any) -> tf.Tensor:
        return compiled_step(model, batch)

    def one_by_one(batches: Sequence[Any]) -> tf.Tensor:
        return tf.add_n([one_step(batch) for batch in batches]) / len(batches)

    @tf.function(reduce_retracing=True)
    def whole(iterator: Any) -> tf.Tensor:
        batches = [next(iterator) for _ in range(steps)]
        if _alike(batches):
            return compiled_steps(model, batches)
        return one_by_one(batches)

    @tf.function(reduce_retracing=True)
    def single(iterator: Any) -> tf.Tensor:
        return one_step(next(iterator))

    def take(iterator: Any) -> dict[str, tf.Tensor]:
        now = int(model.steps_per_execution)
        if now == steps:
            loss = whole(iterator)
        else:
            loss = tf.add_n([single(iterator) for _ in range(now)]) / now
        model._train_counter.assign_add(now)
        return model.step_results(loss, tf.constant(0.0))

    return take


def _alike(batches: Sequence[Any]) -> tf.Tensor:
    """Whether all batches are of the same shapes."""
    shapes = [tf.concat([tf.shape(x) for x in tf.nest.flatten(one)], axis=0) for one in batches]
    return tf.reduce_all(tf.equal(tf.stack(shapes), shapes[0]))


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
