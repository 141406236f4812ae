"""Bayesian personalised ranking over the candidates of a request."""

from __future__ import annotations

import tensorflow as tf

from tfrec_feedback.losses.elements import ElementLoss, Elements, element_weights, is_positive


@tf.keras.utils.register_keras_serializable(package="tfrec_feedback")
class BPRLoss(ElementLoss):
    """Cross entropy of the order of each positive and the negatives of its own request.

        l_i = mean over negatives j of the request of -log sigmoid(s_i - s_j)

    Elements are the positives that have a negative; all other candidates, and requests of one
    class, take no part. A weight tells whether a negative takes part, not how much it counts. With
    `reduction="sum"` and weights of 1 / instances, the sum is divided by all instances, not by the
    positives.

    Reweighted, each pair is multiplied by `sigmoid(s_i - s_j)^beta` inside the mean.

    Call arguments:
        y_true: labels `[..., N]`, one row a request; 1 is a positive, everything else a negative.
        y_pred: logits `[..., N]`.
        sample_weight: as of `ElementLoss`; 0 where a row is padded.

    Example:
        >>> labels, logits = tf.constant([[1.0, 0.0, 0.0]]), tf.constant([[1.0, 1.0, 1.0]])
        >>> round(float(BPRLoss()(labels, logits)), 6)
        0.693147

    Reference: Rendle et al., 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback.
    """

    def elements(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor | None = None
    ) -> Elements:
        """Returns losses, weights, positives and confidence, in the shape of `y_pred`.

        The confidence of a positive is the mean of that in its pairs.
        """
        return self.reweighted(y_true, y_pred, weights, beta=0.0)[0]

    def reweighted(
        self,
        y_true: tf.Tensor,
        y_pred: tf.Tensor,
        weights: tf.Tensor | None,
        beta: float,
        negatives: str = "reweighted",
    ) -> tuple[Elements, tf.Tensor]:
        """Returns elements whose pairs are multiplied by `sigmoid(s_i - s_j)^beta`.

        Args:
            y_true: as in the call.
            y_pred: as in the call.
            weights: as `sample_weight`.
            beta: exponent.
            negatives: without effect; no element is a negative.

        Returns:
            The elements, and the mean factor of each one's pairs, 1 where there is none.
        """
        logits = tf.convert_to_tensor(y_pred)
        weights = element_weights(weights, logits)
        positives = is_positive(y_true)
        takes_part = weights > 0
        others = tf.cast(takes_part & ~positives, logits.dtype)[..., tf.newaxis, :]
        count = tf.reduce_sum(others, axis=-1)

        def over_negatives(pairs: tf.Tensor) -> tf.Tensor:
            return tf.math.divide_no_nan(tf.reduce_sum(pairs * others, axis=-1), count)

        # Padding has a logit of 0 here: whatever it holds cannot reach a pair, not even as NaN.
        scores = tf.where(takes_part, logits, tf.zeros_like(logits))
        losses = tf.nn.softplus(scores[..., tf.newaxis, :] - scores[..., tf.newaxis])
        factors = tf.stop_gradient(tf.exp(-beta * losses))
        usable = positives & takes_part & (count > 0)
        elements = Elements(
            losses=over_negatives(factors * losses),
            weights=tf.where(usable, weights, tf.zeros_like(weights)),
            positives=positives,
            confidence=-over_negatives(losses),
        )
        return elements, tf.where(usable, over_negatives(factors), tf.ones_like(logits))
