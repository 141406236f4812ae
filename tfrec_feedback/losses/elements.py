"""What losses of single elements have in common, so that any of them can be denoised."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

POSITIVE = 1
"""Label of an observed positive; every other label is no positive."""


class Elements(NamedTuple):
    """A batch before it is reduced; all tensors have the shape of the logits.

    Attributes:
        losses: float tensor, the loss of each element.
        weights: float tensor, what each element weighs; 0 where it takes no part, because it is
            padded or no element of this loss.
        positives: bool tensor, whether the element is an observed positive.
        confidence: float tensor <= 0, logarithm of the probability that the model gives to the
            observed label.
    """

    losses: tf.Tensor
    weights: tf.Tensor
    positives: tf.Tensor
    confidence: tf.Tensor


class ElementLoss(tf.keras.losses.Loss):
    """A loss that is a weighted sum, or mean, over elements.

    With `reduction="sum"` it is `sum(w l)`, which is a mean when the weights are shares, as in
    `FeedbackModel`. Otherwise it is `sum(w l) / divisor(w)`: a weighted mean, 0 without weights.
    `"none"` returns `w l`.

    Subclasses define `elements`.

    Call arguments:
        y_true: observed labels, 1 for positives; or types as of `FeedbackCrossEntropy`.
        y_pred: logits of the same shape.
        sample_weight: weights >= 0 of that shape, or of one that broadcasts to it, or None.
            Where it is 0 the element is neither counted nor compared with others.
    """

    def elements(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None = None
    ) -> Elements:
        """Returns losses, weights, positives and confidence, in the shape of `y_pred`."""
        raise NotImplementedError(f"{type(self).__name__} must define `elements`.")

    def reweighted(
        self,
        y_true: tf.Tensor,
        y_pred: tf.Tensor,
        weights: tf.Tensor | None,
        beta: float,
        negatives: str = "reweighted",
    ) -> tuple[Elements, tf.Tensor]:
        """Multiplies losses by the model's confidence in the observed label, to the power `beta`.

        A loss whose elements are made of parts may multiply the parts instead.

        Args:
            y_true: as in the call.
            y_pred: as in the call.
            weights: as `sample_weight`.
            beta: exponent; no gradient flows through what it is the exponent of.
            negatives: `"plain"` leaves all but observed positives as they are.

        Returns:
            The elements with their new losses, and the factors, in the shape of `y_pred`.
        """
        found = self.elements(y_true, y_pred, weights)
        factors = tf.stop_gradient(tf.exp(beta * found.confidence))
        if negatives == "plain":
            factors = tf.where(found.positives, factors, tf.ones_like(factors))
        return found._replace(losses=factors * found.losses), factors

    def divisor(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns what a sum becomes a mean by, from the elements' weights: their sum."""
        return tf.reduce_sum(weights)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of every element, in the shape of `y_pred`; 0 where it is none."""
        found = self.elements(y_true, y_pred)
        return found.losses * found.weights

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the reduced loss."""
        found = self.elements(y_true, y_pred, sample_weight)
        terms = found.losses * found.weights
        return reduced(terms, self.divisor(found.weights), self._get_reduction())


class DenoisingLoss(tf.keras.losses.Loss):
    """An element loss in which doubtful elements count less, or not at all.

    Subclasses define `factors` and `terms`.

    Args:
        base: the `ElementLoss`.
        reduction: by default that of `base`.
        name: optional name.
    """

    def __init__(self, base: ElementLoss, reduction: str | None = None, name: str | None = None):
        if not isinstance(base, ElementLoss):
            raise ValueError(f"base must be an ElementLoss, got {type(base).__name__}.")
        super().__init__(reduction=reduction or base.reduction, name=name)
        self.base = base

    def factors(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns what the loss of each element is multiplied by, in the shape of `y_pred`."""
        raise NotImplementedError(f"{type(self).__name__} must define `factors`.")

    def terms(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | float]:
        """Returns weighted losses and the base's weights, both by element, and a common factor."""
        raise NotImplementedError(f"{type(self).__name__} must define `terms`.")

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of every element, in the shape of `y_pred`."""
        terms, _, scale = self.terms(y_true, y_pred, None)
        return scale * terms

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the reduced loss."""
        terms, weights, scale = self.terms(y_true, y_pred, sample_weight)
        return scale * reduced(terms, self.base.divisor(weights), self._get_reduction())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "base": tf.keras.losses.serialize(self.base)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DenoisingLoss:
        """Builds the loss from `get_config`'s output."""
        base = config["base"]
        if not isinstance(base, ElementLoss):
            base = tf.keras.losses.deserialize(base)
        return cls(**{**config, "base": base})


def is_positive(y_true: tf.Tensor) -> tf.Tensor:
    """Marks observed positives: bool tensor of the same shape."""
    y_true = tf.convert_to_tensor(y_true)
    return tf.equal(y_true, tf.cast(POSITIVE, y_true.dtype))


def element_weights(weights: tf.Tensor | None, logits: tf.Tensor) -> tf.Tensor:
    """Returns one weight for each logit; ones for None.

    A last axis that only one of the two has is added or removed, as Keras does.
    """
    if weights is None:
        return tf.ones_like(logits)
    weights = tf.cast(weights, logits.dtype)
    if weights.shape.rank and logits.shape.rank is not None:
        if weights.shape.rank == logits.shape.rank - 1:
            weights = weights[..., tf.newaxis]
        elif weights.shape.rank == logits.shape.rank + 1:
            weights = tf.squeeze(weights, -1)
    return tf.broadcast_to(weights, tf.shape(logits))


def reduced(terms: tf.Tensor, divisor: tf.Tensor, reduction: str) -> tf.Tensor:
    """Returns weighted losses as they are (`"none"`), summed (`"sum"`), or as a mean."""
    if reduction == tf.keras.losses.Reduction.NONE:
        return terms
    total = tf.reduce_sum(terms)
    if reduction == tf.keras.losses.Reduction.SUM:
        return total
    return tf.math.divide_no_nan(total, divisor)
