"""Keras layers of the feedback models, in request form: one user, his histories, N candidates."""

from tfrec_feedback.layers.activation_unit import ActivationUnit, segment_softmax
from tfrec_feedback.layers.behaviour_embedding import BehaviourEmbedding, LengthEmbedding
from tfrec_feedback.layers.cross_network import VectorCrossNetwork
from tfrec_feedback.layers.crossed_weights import CrossedWeights
from tfrec_feedback.layers.dice import Activation, Dice
from tfrec_feedback.layers.dropout import ResumableDropout
from tfrec_feedback.layers.external_feedback_interaction import ExternalFeedbackInteraction
from tfrec_feedback.layers.feature_embedding import (
    EmbeddedRequest,
    FeatureEmbedding,
    WideWeights,
)
from tfrec_feedback.layers.feature_encoding import FeatureEncoder
from tfrec_feedback.layers.feature_purification import FeaturePurification
from tfrec_feedback.layers.field_pairs import (
    FieldPairs,
    InnerProducts,
    OuterProducts,
    PairAttention,
)
from tfrec_feedback.layers.fusion_variants import FUSIONS
from tfrec_feedback.layers.gated_fusion import GatedFusion
from tfrec_feedback.layers.interacting import InteractingLayer
from tfrec_feedback.layers.internal_feedback_interaction import InternalFeedbackInteraction
from tfrec_feedback.layers.linear_term import LinearTerm
from tfrec_feedback.layers.masking import (
    length_mask,
    masked_softmax,
    ragged_mean,
)
from tfrec_feedback.layers.multi_head_interaction_attention import MultiHeadInteractionAttention
from tfrec_feedback.layers.replicas import sum_over_replicas
from tfrec_feedback.layers.split_dense import SplitDense
from tfrec_feedback.layers.split_mlp import SplitMLP
from tfrec_feedback.layers.user_memory import MemoryAccess, UserMemory
from tfrec_feedback.layers.wide_fm_deep import (
    WideFMDeep,
    bi_interaction,
    request_bi_interaction,
)

__all__ = [
    "FUSIONS",
    "Activation",
    "ActivationUnit",
    "BehaviourEmbedding",
    "CrossedWeights",
    "Dice",
    "EmbeddedRequest",
    "ExternalFeedbackInteraction",
    "FeatureEmbedding",
    "FeatureEncoder",
    "FeaturePurification",
    "FieldPairs",
    "GatedFusion",
    "InnerProducts",
    "InteractingLayer",
    "InternalFeedbackInteraction",
    "LengthEmbedding",
    "LinearTerm",
    "MemoryAccess",
    "MultiHeadInteractionAttention",
    "OuterProducts",
    "PairAttention",
    "ResumableDropout",
    "SplitDense",
    "SplitMLP",
    "UserMemory",
    "VectorCrossNetwork",
    "WideFMDeep",
    "WideWeights",
    "bi_interaction",
    "length_mask",
    "masked_softmax",
    "ragged_mean",
    "request_bi_interaction",
    "segment_softmax",
    "sum_over_replicas",
]
