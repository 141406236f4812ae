"""The loss that drops the observed positives it finds hardest to believe."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec_feedback.losses.elements import DenoisingLoss, ElementLoss, Elements
from tfrec_feedback.losses.truncation import DropSchedule, check_options, truncation_weights

SCOPES = ("replica", "global")


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class Truncated(DenoisingLoss):
    """Truncated loss (T-CE): the mean over all elements but the positives with the largest losses.

        L = sum_i k_i w_i l_i  *  sum_i w_i / sum_i k_i w_i,        k = `truncation_weights`

    Early in training, interactions that say nothing about preference have larger losses than the
    others; the drop rate grows while the model learns to tell them. Where the weights are shares of
    a batch that sum to 1, this is the mean over what is kept; a micro-batch or replica keeps its
    share. A mean reduction divides it as the base loss does. While the rate is 0, the loss equals
    the base loss to the bit.

    Args:
        base: loss of the elements.
        max_rate: largest drop rate.
        num_steps: updates until it is reached.
        drop_base: `"batch"` or `"positives"`, see `truncation_weights`.
        rounding: `"floor"` or `"ceil"`.
        scope: `"replica"` compares the elements of each replica; `"global"` those of all replicas
            of a `tf.distribute` strategy, at the cost of exchanging three numbers an element.
        max_positive_fraction: largest share of the positives that may be dropped.
        schedule: `"paper"` or `"code"`, the form of `DropSchedule`.
        step: int64 variable that counts updates. The loss reads it alone: whoever trains advances
            it once an optimiser step (not a micro-batch) and checkpoints it, as a restart from 0
            would drop nothing for a while. By default the loss makes one.
        reduction: by default that of `base`.
        name: optional name.

    Call arguments:
        y_true: as of `base`.
        y_pred: as of `base`.
        sample_weight: as of `base`.

    Example:
        >>> from tfrec_feedback.losses import FeedbackCrossEntropy
        >>> loss = Truncated(FeedbackCrossEntropy(), max_rate=0.2, num_steps=5)
        >>> labels = tf.constant([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
        >>> logits = tf.constant([2.0, 0.0, -1.0, -3.0, 1.5, -0.5])
        >>> before = round(float(loss(labels, logits)), 4)
        >>> _ = loss.step.assign(5)
        >>> before, round(float(loss(labels, logits)), 4)
        (1.2262, 0.8618)

    Reference: Wang et al., 2021 (ADT), truncated loss, algorithm 1.
    """

    def __init__(  # noqa: PLR0913 - one keyword an option, all with defaults
        self,
        base: ElementLoss,
        max_rate: float = 0.2,
        num_steps: int = 30_000,
        drop_base: str = "batch",
        rounding: str = "floor",
        scope: str = "replica",
        max_positive_fraction: float = 0.5,
        schedule: str = "paper",
        step: tf.Variable | None = None,
        reduction: str | None = None,
        name: str | None = None,
    ):
        super().__init__(base, reduction, name)
        check_options(drop_base, rounding, max_positive_fraction)
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {list(SCOPES)}, got {scope!r}.")
        self.schedule = DropSchedule(max_rate, num_steps, schedule)
        self.drop_base = drop_base
        self.rounding = rounding
        self.scope = scope
        self.max_positive_fraction = max_positive_fraction
        self.step = step
        if step is None:
            self.step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                name="drop_step",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def drop_rate(self) -> tf.Tensor:
        """Returns the drop rate of the update that `step` counts: a float64 scalar."""
        return self.schedule(self.step)

    def factors(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns 0 for dropped elements and 1 for the others, in the shape of `y_pred`."""
        return self._kept(self.base.elements(y_true, y_pred, sample_weight))

    def terms(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns what is kept, weighted, the weights, and what all weigh for one that is kept."""
        found = self.base.elements(y_true, y_pred, weights)
        kept = self._kept(found)
        sums = tf.stack([tf.reduce_sum(found.weights), tf.reduce_sum(kept * found.weights)])
        context = self._exchange()
        if context is not None:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        terms = kept * (found.losses * found.weights)
        return terms, found.weights, tf.math.divide_no_nan(sums[0], sums[1])

    def _kept(self, found: Elements) -> tf.Tensor:
        own = [
            tf.reshape(tf.cast(part, found.losses.dtype), [-1])
            for part in (found.losses, found.positives, found.weights > 0)
        ]
        context = self._exchange()
        if context is None:
            kept = self._kept_of(*own)
        else:
            # Replicas stand in the order of their numbers, so equal losses are dropped in it.
            every = context.all_gather(tf.stop_gradient(tf.stack(own, axis=1)), axis=0)
            sizes = context.all_gather(tf.shape(own[0]), axis=0)
            first = tf.reduce_sum(sizes[: context.replica_id_in_sync_group])
            kept = self._kept_of(*tf.unstack(every, num=len(own), axis=1))
            kept = kept[first : first + tf.size(own[0])]
        return tf.reshape(kept, tf.shape(found.losses))

    def _kept_of(self, losses: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return truncation_weights(
            losses,
            labels,
            self.drop_rate(),
            self.drop_base,
            self.rounding,
            self.max_positive_fraction,
            weights,
        )

    def _exchange(self) -> tf.distribute.ReplicaContext | None:
        """Returns the way to other replicas, if there are any and the scope is global."""
        context = tf.distribute.get_replica_context()
        alone = context is None or context.num_replicas_in_sync == 1
        return None if alone or self.scope != "global" else context

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, all but `step`."""
        return {
            **super().get_config(),
            "max_rate": self.schedule.max_rate,
            "num_steps": self.schedule.num_steps,
            "drop_base": self.drop_base,
            "rounding": self.rounding,
            "scope": self.scope,
            "max_positive_fraction": self.max_positive_fraction,
            "schedule": self.schedule.form,
        }
