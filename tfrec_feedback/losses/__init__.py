"""Losses that tell feedbacks apart."""

from tfrec_feedback.losses.feedback_cross_entropy import (
    CLICK,
    DISLIKE,
    UNCLICK,
    FeedbackCrossEntropy,
    feedback_type,
)
from tfrec_feedback.losses.triplet import MININGS, SampledItems, cosine_distance, triplet_loss

__all__ = [
    "CLICK",
    "DISLIKE",
    "MININGS",
    "UNCLICK",
    "FeedbackCrossEntropy",
    "SampledItems",
    "cosine_distance",
    "feedback_type",
    "triplet_loss",
]
