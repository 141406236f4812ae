"""Losses that tell feedbacks apart, as `tf.keras.losses.Loss` objects."""

from tfrec_feedback.losses.feedback_cross_entropy import (
    CLICK,
    DISLIKE,
    UNCLICK,
    FeedbackCrossEntropy,
    feedback_type,
)

__all__ = ["CLICK", "DISLIKE", "UNCLICK", "FeedbackCrossEntropy", "feedback_type"]
