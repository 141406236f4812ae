"""DIN, the deep interest network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import ActivationUnit, SplitMLP
from tfrec_feedback.models.base import Tensors, side_by_side
from tfrec_feedback.models.baseline import Baseline, events_of
from tfrec_feedback.models.compiled_step import can_compile, compiled_step, train_function
from tfrec_feedback.schema import Schema


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class DIN(Baseline):
    """Deep Interest Network: every history is read for the candidate by an activation unit.

    Each feedback has an activation unit of its own. Shared by the candidates of a request: the
    user's part of the deep layers, and the events' part of the activation units.

    Widths are those of the paper's figure; a common preset of others is `attention_units=(80, 40)`
    with `deep_units=(256, 128, 64)`.

    Args:
        schema: what a request holds.
        attention_units: hidden widths of the activation units.
        attention_activation: `"dice"`, or any of Keras.
        attention_softmax: normalises the weights of a history; off as printed.
        deep_units: widths of the deep part.
        deep_activation: `"dice"`, or any of Keras.
        dropout: rate in the deep part.
        output_bias: see `FeedbackModel`.
        **options: see `Baseline`.

    Attributes:
        compiled_training: whether XLA compiles training steps; set it before the first. Such a
            step takes the same descent, but looks at padded events, and compiling takes seconds
            for every shape of a batch. Several steps an execution, `compile(LazyAdam(),
            steps_per_execution=20)`, are one program: up to twice as fast where nearly all
            histories are full (`python -m benchmarks din`), and slower where they are not, as in
            most logs (`python -m benchmarks din_logs`). Steps that cannot be compiled with the
            same result, see `can_compile`, are taken as ever. Off by default.

    Reference: Zhou et al., 2018, Deep Interest Network for Click-Through Rate Prediction, KDD.
    """

    compiled_training = False
    train_function: Any

    def __init__(
        self,
        schema: Schema,
        attention_units: Sequence[int] = (36,),
        attention_activation: str = "dice",
        attention_softmax: bool = False,
        deep_units: Sequence[int] = (200, 80),
        deep_activation: str = "relu",
        dropout: float = 0.0,
        output_bias: bool = True,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, output_bias=output_bias, **options)
        self.remember_arguments({**given, **options})
        self.units = {
            history.name: ActivationUnit(
                attention_units,
                attention_activation,
                attention_softmax,
                name=f"{history.name}_activation_unit",
            )
            for history in self.histories
        }
        self.deep = SplitMLP(deep_units, deep_activation, dropout)
        self.drops_out = bool(dropout or self.context_dropout)

    def call(self, features: Tensors, training: bool | None = None) -> Tensors:
        """Scores every candidate of every request; reads as figure 2 of the paper."""
        encoded = self.encode(features)
        fields, valid = self.embedding(encoded, training=training), self.valid(encoded)
        interests = [
            self.units[history.name](
                (self.target(fields, history), events_of(fields, history)),
                mask=valid,
                training=training,
            )
            for history in self.histories
        ]
        user, items = side_by_side(fields.context), side_by_side(fields.candidates)
        candidates = tf.concat([items, *interests], axis=-1)
        return self.task_logits(self.deep((user, candidates), mask=valid, training=training))

    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """One optimiser step, compiled where that is asked for and changes nothing."""
        if self.compiles:
            return self.step_results(compiled_step(self, inputs), tf.constant(0.0))
        return super().train_step(inputs)

    def make_train_function(self, force: bool = False) -> Any:
        """Returns what `fit` calls: compiled steps, several an execution, are one program."""
        several = self.steps_per_execution is not None and int(self.steps_per_execution) > 1
        if not several or self.run_eagerly or not self.compiles:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = train_function(self)
        return self.train_function

    @property
    def compiles(self) -> bool:
        """Whether training steps are compiled: asked for, and without any change of the result."""
        return self.compiled_training and not self.drops_out and can_compile(self)
