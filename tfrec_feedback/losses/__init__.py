"""Losses that tell feedbacks apart, and losses that doubt them."""

from tfrec_feedback.losses.denoising import DENOISING, denoising_loss
from tfrec_feedback.losses.elements import DenoisingLoss, ElementLoss, Elements
from tfrec_feedback.losses.feedback_cross_entropy import (
    CLICK,
    DISLIKE,
    UNCLICK,
    FeedbackCrossEntropy,
    feedback_type,
)
from tfrec_feedback.losses.margins import HingeLoss, SquareLoss
from tfrec_feedback.losses.pairwise import BPRLoss
from tfrec_feedback.losses.reweighting import Reweighted, calibrated_logits, reweighting_weights
from tfrec_feedback.losses.triplet import MININGS, SampledItems, cosine_distance, triplet_loss
from tfrec_feedback.losses.truncated import Truncated
from tfrec_feedback.losses.truncation import DropSchedule, truncation_weights

__all__ = [
    "CLICK",
    "DENOISING",
    "DISLIKE",
    "MININGS",
    "UNCLICK",
    "BPRLoss",
    "DenoisingLoss",
    "DropSchedule",
    "ElementLoss",
    "Elements",
    "FeedbackCrossEntropy",
    "HingeLoss",
    "Reweighted",
    "SampledItems",
    "SquareLoss",
    "Truncated",
    "calibrated_logits",
    "cosine_distance",
    "denoising_loss",
    "feedback_type",
    "reweighting_weights",
    "triplet_loss",
    "truncation_weights",
]
