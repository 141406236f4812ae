"""The loss in which elements count as far as the model believes their labels."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfrec_feedback.losses.elements import DenoisingLoss, ElementLoss, is_positive

NEGATIVES = ("reweighted", "plain")


def reweighting_weights(logits: tf.Tensor, labels: tf.Tensor, beta: float) -> tf.Tensor:
    """Returns `p^beta` for observed positives and `(1 - p)^beta` for the rest, p = sigmoid(logit).

    No gradient flows through the weights: with one, small p would be pushed down further.

    Args:
        logits: float tensor `[B]`.
        labels: tensor `[B]`; 1 is an observed positive, everything else is none.
        beta: exponent >= 0; 0 gives ones.

    Returns:
        float tensor `[B]` in [0, 1].

    Raises:
        ValueError: for a negative or infinite beta.

    Example:
        >>> reweighting_weights(tf.constant([0.0, 0.0]), tf.constant([1, 0]), 1.0).numpy().tolist()
        [0.5, 0.5]

    Reference: Wang et al., 2021 (ADT), reweighted loss; detached as in its code.
    """
    _check_beta(beta)
    logits = tf.convert_to_tensor(logits)
    # The logarithm of a probability is finite for every logit; the probability may be 0.
    opposite = tf.where(is_positive(labels), -logits, logits)
    return tf.stop_gradient(tf.exp(-beta * tf.nn.softplus(opposite)))


def calibrated_logits(logits: tf.Tensor, beta: float) -> tf.Tensor:
    """Returns logits whose sigmoid is the observed rate, after training with the reweighted loss.

    Reweighted cross entropy is stationary at `logit(p) = logit(rate) / (1 - beta)`: it sharpens
    predictions. This undoes it and changes no order. It holds for both classes reweighted.

    Args:
        logits: float tensor of any shape.
        beta: what the model was trained with, in [0, 1).

    Raises:
        ValueError: for other betas: from 1 on, the loss has no finite optimum.

    Example:
        >>> float(calibrated_logits(tf.constant(-2.0), beta=0.25))
        -1.5
    """
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta must lie in [0, 1), got {beta!r}: from 1 on, reweighted cross entropy has no "
            "finite optimum that could be calibrated."
        )
    return (1.0 - beta) * tf.convert_to_tensor(logits)


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class Reweighted(DenoisingLoss):
    """Reweighted loss (R-CE): losses times the probability of the observed label to a power.

        L = sum_i w_i p_i^beta l_i,        p_i = probability given to the observed label

    Reduced as the base loss: a mean is not divided by the sum of the factors. With `beta` 0, the
    loss equals the base loss to the bit. Predictions trained with it are too sharp; see
    `calibrated_logits`.

    Args:
        base: loss of the elements.
        beta: exponent >= 0.
        negatives: `"reweighted"`, or `"plain"`: factor 1 for all but observed positives.
        reduction: by default that of `base`.
        name: optional name.

    Call arguments:
        y_true: as of `base`.
        y_pred: as of `base`.
        sample_weight: as of `base`.

    Example:
        >>> from tfrec_feedback.losses import FeedbackCrossEntropy
        >>> loss = Reweighted(FeedbackCrossEntropy(), beta=1.0)
        >>> round(float(loss(tf.constant([1.0]), tf.constant([0.0]))), 6)
        0.346574

    Reference: Wang et al., 2021 (ADT), reweighted loss.
    """

    def __init__(
        self,
        base: ElementLoss,
        beta: float = 0.2,
        negatives: str = "reweighted",
        reduction: str | None = None,
        name: str | None = None,
    ):
        super().__init__(base, reduction, name)
        _check_beta(beta)
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives must be one of {list(NEGATIVES)}, got {negatives!r}.")
        self.beta = beta
        self.negatives = negatives

    def factors(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the factor of each element in [0, 1], in the shape of `y_pred`."""
        return self.base.reweighted(y_true, y_pred, sample_weight, self.beta, self.negatives)[1]

    def terms(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, float]:
        """Returns reweighted losses, weighted, and the weights of the mean."""
        found, _ = self.base.reweighted(y_true, y_pred, weights, self.beta, self.negatives)
        return found.losses * found.weights, found.weights, 1.0

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "beta": self.beta, "negatives": self.negatives}


def _check_beta(beta: float) -> None:
    if not (0 <= beta and math.isfinite(beta)):
        raise ValueError(f"beta must be a finite number >= 0, got {beta!r}.")
