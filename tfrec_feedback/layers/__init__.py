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
from tfrec_feedback.layers.fusion_variants import FUSIONS
from tfrec_feedback.layers.gated_fusion import GatedFusion
from tfrec_feedback.layers.internal_feedback_interaction import InternalFeedbackInteraction
from tfrec_feedback.layers.masking import (
    length_mask,
    masked_mean,
    masked_softmax,
)
from tfrec_feedback.layers.multi_head_interaction_attention import MultiHeadInteractionAttention
from tfrec_feedback.layers.replicas import sum_over_replicas
from tfrec_feedback.layers.split_dense import SplitDense
from tfrec_feedback.layers.user_memory import MemoryAccess, UserMemory
from tfrec_feedback.layers.wide_fm_deep import WideFMDeep, bi_interaction

__all__ = [
    "FUSIONS",
    "BehaviourEmbedding",
    "EmbeddedRequest",
    "ExternalFeedbackInteraction",
    "FeatureEmbedding",
    "FeatureEncoder",
    "FeaturePurification",
    "GatedFusion",
    "InternalFeedbackInteraction",
    "LengthEmbedding",
    "MemoryAccess",
    "MultiHeadInteractionAttention",
    "ResumableDropout",
    "SplitDense",
    "UserMemory",
    "WideFMDeep",
    "WideWeights",
    "bi_interaction",
    "length_mask",
    "masked_mean",
    "masked_softmax",
    "sum_over_replicas",
]
