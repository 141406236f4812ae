"""NMTR and NR: recommenders that are told which clicks did not satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec_feedback.layers import FeatureEmbedding
from tfrec_feedback.models.base import AUXILIARY, Tensors
from tfrec_feedback.models.recommender import GMF, Recommender
from tfrec_feedback.schema import Schema

CASCADES = ("additive", "average")
_ROUNDING = 1e-9
"""What two weights may leave of 1 below nothing: 1 - 0.8 - 0.2 is -5.6e-17."""


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class NMTR(Recommender):
    """Neural multi-task recommendation: a click first, then a click that satisfies.

        s1 = f1(u, i) + b_i,   s2 = s1 + f2(u, i) + b_i,   f_r = h_r . ReLU((p_u * q_i) W_r)

    Users, items and item biases are shared by both levels. A click satisfies unless its label says
    dislike: level 1 learns from all clicks, level 2 from those that satisfy, and items are ranked
    by level 2. Labels do not tell whether what is disliked was clicked: level 1 takes every dislike
    for a click, which on a log of impressions it need not have been.

    Args:
        schema: what a request holds; needs the tasks `ctr` and `dislike`.
        embedding_dim: width of users and items.
        scorer_units: width of `W_r`; 0 for `f_r = h_r . (p_u * q_i)`.
        cascade: `"additive"`, as above, or `"average"`, `s2 = (s1 + f2) / 2 + b_i`, as in the code
            of the authors.
        click_share: weight of level 1 in the loss; that of level 2 is the rest.
        **options: see `Recommender`; the biases are the items'. Both levels learn from clicks:
            neither `dislike_head` nor `dislike_protocol="dislike_label"` goes with them.

    Raises:
        ValueError: for unknown options, or ones that train an output on dislikes; without a task
            `dislike`.

    Reference: Gao et al., 2019, Neural Multi-Task Recommendation from Multi-Behavior Data, ICDE,
    eqs. 5 to 9.
    """

    learned_output = False
    has_auxiliary_loss = True
    reads_satisfaction = True
    num_negatives = 4

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 64,
        scorer_units: int = 0,
        cascade: str = "additive",
        click_share: float = 0.5,
        **options: Any,
    ):
        given = self.arguments_of(locals())
        super().__init__(schema, **options)
        self.remember_arguments({**given, **options})
        if cascade not in CASCADES:
            raise ValueError(f"cascade must be one of {list(CASCADES)}, got {cascade!r}.")
        if not 0.0 <= click_share < 1.0:
            raise ValueError(f"click_share must be in [0, 1), got {click_share}.")
        if "dislike" not in self._tasks:
            raise ValueError("NMTR learns from clicks that did not satisfy: a task 'dislike'.")
        if self.has_dislike_head or self.main_task == "dislike":
            raise ValueError(
                "Both levels of NMTR learn from clicks: expected dislike_head=False and "
                "dislike_protocol='one_minus_ctr'."
            )
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}.")
        self.cascade, self.click_share = cascade, click_share
        # The last number of an item's row is its bias.
        self.embedding = FeatureEmbedding(self.schema, embedding_dim + 1)
        self.scorers = [Scorer(scorer_units, name=f"level_{level}") for level in (1, 2)]

    def call(
        self, features: Tensors, training: bool | None = None, return_auxiliary: bool = False
    ) -> Tensors:
        """Scores every candidate of every request by level 2."""
        fields = self.embedding(self.encode(features), training=training)
        items = fields.candidates[:, :, 0]
        product, bias = fields.context[..., :-1] * items[..., :-1], items[..., -1]
        clicked = self.scorers[0](product) + bias
        satisfied = self.scorers[1](product)
        if self.cascade == "additive":
            satisfied += clicked + bias
        else:
            satisfied = (clicked + satisfied) / 2.0 + bias
        logits = self.signed_logits(satisfied)
        return {**logits, AUXILIARY: clicked} if return_auxiliary else logits

    def task_loss(self, logits: Tensors, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns level 2's part of the loss."""
        return super().task_loss(logits, labels, share * (1.0 - self.click_share))

    def auxiliary_loss(self, auxiliary: Any, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns level 1's part of the loss: all clicks, and dislikes, which count as such."""
        clicked = tf.maximum(labels["ctr"], labels["dislike"])
        weight = share * self.click_share
        return self.click_task(labels=clicked, predictions=auxiliary, sample_weight=weight)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class Scorer(tf.keras.layers.Layer):
    """`f = h . ReLU(x W)`, or `h . x` without hidden units.

    Args:
        units: width of W; 0 for none.

    Call arguments:
        inputs: float tensor `[..., D]`.

    Returns:
        float tensor `[...]`.

    Raises:
        ValueError: for negative units.
    """

    def __init__(self, units: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if units < 0:
            raise ValueError(f"units must not be negative, got {units}.")
        self.units = units
        self._hidden = tf.keras.layers.Dense(units, "relu", use_bias=False) if units else None
        self._score = tf.keras.layers.Dense(1, use_bias=False)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the score."""
        hidden = inputs if self._hidden is None else self._hidden(inputs)
        return tf.squeeze(self._score(hidden), -1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "units": self.units}


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class NR(GMF):
    """Negative feedback reweighting: GMF on three strata of exposures, each of a fixed weight.

        L = l_p E_complete[CE(1)] + l_n E_skip[CE(0)] + (1 - l_p - l_n) E_unobserved[CE(0)]

    Complete is a click that satisfied, skip one that did not (its label says dislike), unobserved
    anything else. A stratum's loss is its mean over the batch; where a batch has none of it, its
    weight goes to the others in proportion. The authors sample batches in these shares; the
    weighted loss is the same in expectation.

    Args:
        schema: what a request holds; needs the tasks `ctr` and `dislike`.
        embedding_dim: width of users and items.
        complete_weight: l_p.
        skip_weight: l_n.
        **options: see `Recommender`. A dislike head learns from all exposures alike, not by strata.

    Raises:
        ValueError: for weights that are negative or exceed 1 together; without a task `dislike`.

    Reference: Wen et al., 2019, Leveraging Post-click Feedback for Content Recommendations, RecSys.
    """

    reads_satisfaction = True

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 100,
        complete_weight: float = 0.5,
        skip_weight: float = 0.3,
        **options: Any,
    ):
        rest = 1.0 - complete_weight - skip_weight
        if not (min(complete_weight, skip_weight) >= 0 and rest >= -_ROUNDING):
            raise ValueError(
                "complete_weight and skip_weight must not be negative, nor above 1 together, got "
                f"{complete_weight} and {skip_weight}."
            )
        super().__init__(schema, embedding_dim, **options)
        given = {"complete_weight": complete_weight, "skip_weight": skip_weight}
        self.remember_arguments({"embedding_dim": embedding_dim, **given, **options})
        if "dislike" not in self._tasks:
            raise ValueError("NR learns from clicks that did not satisfy: a task 'dislike'.")
        self.strata_weights: Sequence[float] = (complete_weight, skip_weight, max(rest, 0.0))

    def main_loss(self, logits: Tensors, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns the weighted mean of the strata's mean losses."""
        return super().main_loss(logits, labels, self.stratified(labels, share))

    def stratified(self, labels: Tensors, share: tf.Tensor) -> tf.Tensor:
        """Returns the weight of every candidate, in sum as much as `share`."""
        skipped = tf.cast(labels["dislike"] > 0, share.dtype)
        complete = tf.cast(labels["ctr"] > 0, share.dtype) * (1.0 - skipped)
        strata = [share * complete, share * skipped, share * (1.0 - complete) * (1.0 - skipped)]
        sizes = [tf.reduce_sum(stratum) for stratum in strata]
        present = [
            tf.where(size > 0, weight, 0.0)
            for size, weight in zip(sizes, self.strata_weights, strict=True)
        ]
        whole = tf.math.divide_no_nan(tf.reduce_sum(share), tf.add_n(present))
        return tf.add_n(
            [
                stratum * tf.math.divide_no_nan(weight * whole, size)
                for stratum, weight, size in zip(strata, present, sizes, strict=True)
            ]
        )
