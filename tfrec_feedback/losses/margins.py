"""Losses of an element's own logit, other than cross entropy."""

from __future__ import annotations

import tensorflow as tf

from tfrec_feedback.losses.elements import ElementLoss, Elements, element_weights, is_positive


class MarginLoss(ElementLoss):
    """A loss of the margin: the logit of positives, minus the logit of the rest.

    Subclasses define `margin_loss`.
    """

    def margin_loss(self, margins: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each margin, in the same shape."""
        raise NotImplementedError(f"{type(self).__name__} must define `margin_loss`.")

    def elements(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None = None
    ) -> Elements:
        """Returns losses, weights, positives and confidence, in the shape of `y_pred`."""
        logits = tf.convert_to_tensor(y_pred)
        weights = element_weights(weights, logits)
        positives = is_positive(y_true)
        # Neither loss nor gradient sees the logits of padding: 0 times infinity is no 0.
        logits = tf.where(weights > 0, logits, tf.zeros_like(logits))
        margins = tf.where(positives, logits, -logits)
        return Elements(self.margin_loss(margins), weights, positives, tf.math.log_sigmoid(margins))


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class SquareLoss(MarginLoss):
    """Squared error of the probability: `(1 - p)^2` for positives, `p^2` for the rest.

    Call arguments:
        y_true: labels; 1 is a positive, everything else is none.
        y_pred: logits of the same shape; p is their sigmoid.
        sample_weight: as of `ElementLoss`.

    Example:
        >>> float(SquareLoss()(tf.constant([1.0, 0.0]), tf.constant([0.0, 0.0])))
        0.25
    """

    def margin_loss(self, margins: tf.Tensor) -> tf.Tensor:
        """Returns the squared probability of the other label."""
        # sigmoid(-m) keeps the digits that 1 - sigmoid(m) loses.
        return tf.square(tf.sigmoid(-margins))


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class HingeLoss(MarginLoss):
    """Hinge on logits: `max(0, 1 - s)` for positives, `max(0, 1 + s)` for the rest.

    Call arguments:
        y_true: labels; 1 is a positive, everything else is none.
        y_pred: logits s of the same shape.
        sample_weight: as of `ElementLoss`.

    Example:
        >>> float(HingeLoss()(tf.constant([1.0, 0.0]), tf.constant([0.5, 0.5])))
        1.0
    """

    def margin_loss(self, margins: tf.Tensor) -> tf.Tensor:
        """Returns by how much each margin falls short of 1."""
        return tf.nn.relu(1.0 - margins)
