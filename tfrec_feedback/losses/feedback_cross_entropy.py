"""DFN's three-part loss."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfrec_feedback.losses.elements import ElementLoss, Elements, element_weights

UNCLICK, CLICK, DISLIKE = 0, 1, 2
"""Feedback types as the loss reads them."""


def feedback_type(clicks: tf.Tensor, dislikes: tf.Tensor) -> tf.Tensor:
    """Joins click and dislike labels into one type; a dislike outranks a click.

    Args:
        clicks: tensor of 0 and 1.
        dislikes: tensor of 0 and 1, of the same shape.

    Returns:
        float32 tensor of that shape: `UNCLICK`, `CLICK` or `DISLIKE`.
    """
    types = tf.where(dislikes > 0, DISLIKE, tf.where(clicks > 0, CLICK, UNCLICK))
    return tf.cast(types, tf.float32)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class FeedbackCrossEntropy(ElementLoss):
    """Weighted cross entropy of click, unclick and dislike, from logits.

        L = -(1/B) [ l_c sum_click log p + l_u sum_unclick log(1 - p) + l_d sum_dislike log(1 - p) ]

    Divided by the number of instances, not by the sum of their weights. With the weights 1:1:10,
    p is pulled below the click rate where dislikes are frequent; it is a ranking score, not a
    calibrated probability.

    Args:
        click_weight: l_c.
        unclick_weight: l_u.
        dislike_weight: l_d.

    Call arguments:
        y_true: tensor of `UNCLICK` (0), `CLICK` (1) and `DISLIKE` (2).
        y_pred: logits of the same shape.

    Raises:
        ValueError: for a weight that is negative or not finite.

    Example:
        >>> loss = FeedbackCrossEntropy()
        >>> round(float(loss(tf.constant([1.0, 0.0, 2.0]), tf.constant([1.2, -0.3, 0.4]))), 6)
        3.31593

    Reference: Xie et al., 2020 (DFN), eq. 11.
    """

    def __init__(
        self,
        click_weight: float = 1.0,
        unclick_weight: float = 1.0,
        dislike_weight: float = 10.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        weights = {"click": click_weight, "unclick": unclick_weight, "dislike": dislike_weight}
        for kind, weight in weights.items():
            if not (0 <= weight and math.isfinite(weight)):
                raise ValueError(f"{kind}_weight must be a finite number >= 0, got {weight!r}.")
        self.click_weight = click_weight
        self.unclick_weight = unclick_weight
        self.dislike_weight = dislike_weight

    def elements(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None = None
    ) -> Elements:
        """Returns losses, weights, positives and confidence, in the shape of `y_pred`.

        The weights of the feedbacks are part of the losses: they are no share of a mean.
        """
        types = tf.cast(y_true, tf.int32)
        kind_weights = tf.gather(
            tf.constant([self.unclick_weight, self.click_weight, self.dislike_weight]), types
        )
        clicks = tf.equal(types, CLICK)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=tf.cast(clicks, y_pred.dtype), logits=y_pred
        )
        losses = entropy * tf.cast(kind_weights, entropy.dtype)
        return Elements(losses, element_weights(weights, entropy), clicks, -entropy)

    def divisor(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns the number of instances, whatever they weigh."""
        return tf.cast(tf.size(weights), weights.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "click_weight": self.click_weight,
            "unclick_weight": self.unclick_weight,
            "dislike_weight": self.dislike_weight,
        }
