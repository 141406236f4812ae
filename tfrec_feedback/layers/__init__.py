"""Keras layers of the feedback models, in request form: one user, his histories, N candidates."""

from tfrec_feedback.layers.behaviour_embedding import BehaviourEmbedding, LengthEmbedding
from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.external_feedback_interaction import ExternalFeedbackInteraction
from tfrec_feedback.layers.feature_embedding import (
    EmbeddedRequest,
    FeatureEmbedding,
    WideWeights,
)
from tfrec_feedback.layers.feature_encoding import FeatureEncoder
from tfrec_feedback.layers.feature_purification import FeaturePurification
from tfrec_feedback.layers.internal_feedback_interaction import InternalFeedbackInteraction
from tfrec_feedback.layers.masking import (
    length_mask,
    masked_mean,
    masked_softmax,
)
from tfrec_feedback.layers.wide_fm_deep import WideFMDeep, bi_interaction

__all__ = [
    "BehaviourEmbedding",
    "EmbeddedRequest",
    "ExternalFeedbackInteraction",
    "FeatureEmbedding",
    "FeatureEncoder",
    "FeaturePurification",
    "InternalFeedbackInteraction",
    "LengthEmbedding",
    "ResumableDropout",
    "WideFMDeep",
    "WideWeights",
    "bi_interaction",
    "length_mask",
    "masked_mean",
    "masked_softmax",
]
