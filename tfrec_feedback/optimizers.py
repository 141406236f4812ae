"""Adam that touches only the embedding rows of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class LazyAdam(tf.keras.optimizers.Adam):
    """Adam for dense weights, lazy Adam for the rows that a batch looked up.

    Keras' Adam decays the moments of every row of an embedding table at every step and moves rows
    the batch never saw; on a table of a million rows that is nearly all of a step. Here a sparse
    gradient updates moments and values of its own rows alone. A row's moments therefore wait
    while the row is unseen. One optimiser serves all weights, is saved and restored like any
    Keras optimiser, and is exactly Adam wherever gradients are dense.

    Adam goes on moving a row for many steps after the batch that touched it; here it moves once.
    `row_scale` can make up for that; what is best differs between logs, so choose it on
    validation.

    Args:
        learning_rate: step size, or a Keras schedule.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: added to the root of the second moment.
        row_scale: factor on the learning rate of sparse gradients.
        weight_decay: decoupled decay: with every step a weight shrinks by `learning_rate *
            weight_decay` of itself. Of tables, only the rows that the batch looked up shrink, by
            `row_scale` times as much; biases, and any other vectors and scalars, never do.
        **kwargs: further arguments of `tf.keras.optimizers.Adam`. `clipnorm`, `global_clipnorm`
            and `clipvalue` look at the whole gradient of a row, however often it was looked up.

    Reference: Kingma & Ba, 2015, algorithm 1, applied by rows;
    Loshchilov & Hutter, 2019, decoupled weight decay; Zhou et al., 2018 (DIN), section 5.1, on
    regularising the rows of a mini-batch alone.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        row_scale: float = 1.0,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ):
        kwargs = {"name": "LazyAdam", **kwargs, "jit_compile": False}
        if kwargs.get("amsgrad"):
            raise ValueError("LazyAdam has no amsgrad variant; use tf.keras.optimizers.Adam.")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)
        self.row_scale = row_scale
        self._decay = weight_decay

    def update_step(self, gradient: Any, variable: tf.Variable) -> None:
        """Applies one gradient; a sparse one reaches its own rows only."""
        if not isinstance(gradient, tf.IndexedSlices):
            # Its own name, not those of the layers around it: a tower of biases has kernels.
            own_name = variable.name.rpartition("/")[2]
            if self._decay and variable.shape.rank > 1 and "bias" not in own_name:
                rate = tf.cast(self.learning_rate, variable.dtype)
                variable.assign_sub(rate * self._decay * variable)
            super().update_step(gradient, variable)
            return
        table = self.table_of(variable)
        # Keras has already summed repeated rows, so every row is written once.
        rows = gradient.indices
        moved = self.moved_rows([tf.gather(part, rows) for part in table], gradient.values)
        for part, new in zip(table, moved, strict=True):
            # `scatter_sub` takes two to four times as long as a gather and an update.
            part.scatter_update(tf.IndexedSlices(new, rows))

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        """Clips rows as they will be applied: Keras sums repeated ones only after clipping."""
        if self.clipnorm or self.global_clipnorm or self.clipvalue:
            grads = self._deduplicate_sparse_grad(grads)
        return super()._clip_gradients(grads)

    def begin_step(self) -> None:
        """Sets the step's learning rate, where it follows a schedule.

        `apply_gradients` does; call it before `update_step` or `moved_rows` without that.
        """
        self._compute_current_learning_rate()

    def table_of(self, variable: tf.Variable) -> list[tf.Variable]:
        """Returns the variable and its first and second moments, all of its shape."""
        index = self._index_dict[self._var_key(variable)]
        return [variable, self._momentums[index], self._velocities[index]]

    def moved_rows(self, rows: Sequence[tf.Tensor], gradient: tf.Tensor) -> list[tf.Tensor]:
        """Returns where a step takes rows of a table; changes nothing.

        Args:
            rows: values, first and second moments of the rows, each `[V, D]`.
            gradient: the whole gradient of every row, `[V, D]`.

        Returns:
            Their new values, first and second moments.
        """
        values, first, second = rows
        step = tf.cast(self.iterations + 1, values.dtype)
        correction = tf.sqrt(1.0 - tf.pow(self.beta_2, step)) / (1.0 - tf.pow(self.beta_1, step))
        rate = tf.cast(self.learning_rate, values.dtype) * self.row_scale
        first = self.beta_1 * first + (1.0 - self.beta_1) * gradient
        second = self.beta_2 * second + (1.0 - self.beta_2) * tf.square(gradient)
        change = rate * correction * first / (tf.sqrt(second) + self.epsilon)
        if self._decay:
            change += rate * self._decay * values
        return [values - change, first, second]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        more = {"row_scale": self.row_scale, "weight_decay": self._decay}
        return {**super().get_config(), **more}
