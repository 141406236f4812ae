"""The multi-gate mixture of experts, the user's part of it paid once a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.products import batched_product, project
from tfrec_feedback.layers.widths import check_widths


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class MixtureOfExperts(tf.keras.layers.Layer):
    """Networks that all tasks share, mixed for every task by a gate of its own.

    With x = concat(context, candidate), experts e_1 .. e_E and a gate of each task t,

        g_t = softmax(x G_t),   y_t = sum_e g_te MLP_e(x)

    First layers and gates are linear in x. All of them stand side by side in one product, whose
    rows of the context are multiplied once a request; see `SplitDense`.

    Args:
        units: widths of an expert's layers.
        num_experts: E.
        num_tasks: how many mixtures are made.
        activation: of the experts' layers, any of Keras.
        dropout: rate after each of the experts' layers while training.

    Call arguments:
        inputs: `(context, candidates)`, float tensors `[R, C]` and `[R, N, K]`; C may be 0.
        training: enables dropout.

    Returns:
        float tensor `[R, N, num_tasks, units[-1]]`; garbage at padded candidates.

    Raises:
        ValueError: without units, or for a count or width below 1.

    Example:
        >>> layer = MixtureOfExperts((8, 4), num_experts=3, num_tasks=2)
        >>> layer((tf.ones([2, 3]), tf.ones([2, 5, 6]))).shape
        TensorShape([2, 5, 2, 4])

    Reference: Ma et al., 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, KDD, section 4.2; Gu et al., 2020 (DMT), CIKM.
    """

    def __init__(
        self,
        units: Sequence[int] = (512, 256, 128),
        num_experts: int = 4,
        num_tasks: int = 1,
        activation: Any = "relu",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_widths("units", units, (512, 256, 128))
        if num_experts < 1 or num_tasks < 1:
            raise ValueError(
                "num_experts and num_tasks must be at least 1, got "
                f"num_experts={num_experts} and num_tasks={num_tasks}."
            )
        self.units = tuple(units)
        self.num_experts = num_experts
        self.num_tasks = num_tasks
        self.activation = tf.keras.activations.get(activation)
        self.dropout = dropout
        self._dropouts = [ResumableDropout(dropout) for _ in self.units]

    def build(self, input_shape: Any) -> None:
        """Creates stacked experts, and the gates; the first C rows belong to the context."""
        context, candidates = (int(tf.TensorShape(shape)[-1]) for shape in input_shape)
        widths = [context + candidates, *self.units]
        experts = self.num_experts
        self.gate_kernels = [
            self.add_weight(name=f"gate_kernel_{task}", shape=(widths[0], experts))
            for task in range(self.num_tasks)
        ]
        self.kernels = []
        self.biases = []
        for i, (rows, columns) in enumerate(zip(widths, widths[1:], strict=False)):
            # Keras would take the experts' axis for part of one wide layer, and start too small.
            limit = (6.0 / (rows + columns)) ** 0.5
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{i}",
                    shape=(rows, experts * columns) if i == 0 else (experts, rows, columns),
                    initializer=tf.keras.initializers.RandomUniform(-limit, limit),
                )
            )
            self.biases.append(
                self.add_weight(name=f"bias_{i}", shape=(experts, 1, columns), initializer="zeros")
            )
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns the mixture of every task; see the class."""
        context, candidates = inputs
        kernel = tf.concat([self.kernels[0], *self.gate_kernels], axis=1)
        rows = context.shape[-1]
        linear = project(context, kernel[:rows])[:, tf.newaxis] + project(candidates, kernel[rows:])
        first, gates = tf.split(
            tf.reshape(linear, [-1, linear.shape[-1]]),
            [self.num_experts * self.units[0], self.num_experts * self.num_tasks],
            axis=-1,
        )
        first = tf.reshape(first, [-1, self.num_experts, self.units[0]])
        hidden = self._activate(tf.transpose(first, [1, 0, 2]), 0, training)  # [E, R N, U]
        for i in range(1, len(self.units)):
            hidden = self._activate(batched_product(hidden, self.kernels[i]), i, training)
        gates = tf.nn.softmax(tf.reshape(gates, [-1, self.num_tasks, self.num_experts]))
        mixed = tf.einsum("mte,emu->mtu", gates, hidden)
        shape = [tf.shape(candidates)[:2], [self.num_tasks, self.units[-1]]]
        return tf.reshape(mixed, tf.concat(shape, axis=0))

    def _activate(self, linear: tf.Tensor, i: int, training: bool | None) -> tf.Tensor:
        return self._dropouts[i](self.activation(linear + self.biases[i]), training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "units": list(self.units),
            "num_experts": self.num_experts,
            "num_tasks": self.num_tasks,
            "activation": tf.keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }
