"""The models by name, and `build_model`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfrec_feedback.models.arguments import check_types
from tfrec_feedback.models.autoint import AutoInt
from tfrec_feedback.models.base import FeedbackModel, empty_request
from tfrec_feedback.models.cdae import CDAE
from tfrec_feedback.models.dcn import DCN
from tfrec_feedback.models.dfn import DFN
from tfrec_feedback.models.dien import DIEN
from tfrec_feedback.models.din import DIN
from tfrec_feedback.models.dmt import DMT
from tfrec_feedback.models.dsin import DSIN
from tfrec_feedback.models.dumn import DUMN
from tfrec_feedback.models.fm import AFM, FM, NFM, DeepFM
from tfrec_feedback.models.nmtr import NMTR, NR
from tfrec_feedback.models.pnn import PNN
from tfrec_feedback.models.recommender import GMF, NeuMF, Recommender
from tfrec_feedback.models.wide_deep import WideDeep
from tfrec_feedback.schema import Schema, suggest

_OFFICIAL_CODE = {
    "embedding_dim": 16,
    "attention_dim": "item",
    "attention_pooling": "sum",
    "attention_output": False,
    "ffn_multiplier": 4,
    "external_score_scale": None,
    "wide_bias": False,
    "output_bias": True,
}

BASELINES: dict[str, tuple[type[FeedbackModel], dict[str, Any]]] = {
    "fm": (FM, {}),
    "wide_deep": (WideDeep, {}),
    "pnn": (PNN, {}),
    "deepfm": (DeepFM, {}),
    "nfm": (NFM, {}),
    "afm": (AFM, {}),
    "dcn": (DCN, {}),
    "dcn_v2": (DCN, {"cross": "matrix"}),
    "din": (DIN, {}),
    "autoint": (AutoInt, {}),
    "autoint_umn": (AutoInt, {"user_memory": {}}),
    "dien": (DIEN, {}),
    "dsin": (DSIN, {}),
    "dmt": (DMT, {}),
}
"""Class and preset parameters of the models that DFN and DUMN are compared with."""

RECOMMENDERS: dict[str, tuple[type[FeedbackModel], dict[str, Any]]] = {
    "gmf": (GMF, {}),
    "neumf": (NeuMF, {}),
    "cdae": (CDAE, {}),
    "nmtr": (NMTR, {}),
    "nr": (NR, {}),
}
"""Class and preset parameters of the recommenders of collaborative filtering."""

MODELS: dict[str, tuple[type[FeedbackModel], dict[str, Any]]] = {
    **BASELINES,
    **RECOMMENDERS,
    # DFN's loss: a dislike weighs ten times a click.
    **{
        f"{name}_plus": (cls, {**preset, "dislike_weight": 10.0})
        for name, (cls, preset) in BASELINES.items()
    },
    "dfn": (DFN, {}),
    "dfn_no_feedback": (DFN, {"internal": (), "external": ()}),
    "dfn_click": (DFN, {"internal": ("click",), "external": ()}),
    "dfn_internal": (DFN, {"external": ()}),
    "dfn_official_code": (DFN, _OFFICIAL_CODE),
    "dfn_umn": (DFN, {"user_memory": {}}),
    "dumn": (DUMN, {}),
    "dumn_learned_strength": (DUMN, {"user_memory": {"key_strength": "learned"}}),
    "dumn_no_fp": (DUMN, {"purify": False}),
    "dumn_no_umn": (DUMN, {"user_memory": None}),
    "dumn_umn1": (DUMN, {"user_memory": {"shared": True}}),
    "dumn_pair_concat": (DUMN, {"pair": "concat"}),
    "dumn_pair_cross": (DUMN, {"pair": "cross"}),
    "dumn_pair_ffn": (DUMN, {"pair": "ffn"}),
    "dumn_pair_attention": (DUMN, {"pair": "attention"}),
    "dumn_no_tl": (DUMN, {"user_memory": {"triplet_weight": 0.0}}),
    "dumn_rs": (DUMN, {"user_memory": {"mining": "random"}}),
    "dumn_if": (DUMN, {"histories": ("click", "unclick"), "purify": False}),
    "dumn_af": (DUMN, {"histories": ("all",), "purify": False}),
}
"""Class and preset parameters of every model name."""


def build_model(name: str, schema: Schema, /, **params: Any) -> tf.keras.Model:
    """Builds a model with all its weights.

    Args:
        name: key of `MODELS`.
        schema: what a request holds.
        **params: arguments of the model's class; they override the preset.

    Returns:
        A `tf.keras.Model`, called on a dict of request tensors; returns `{task: logits [R, N]}`.

    Raises:
        ValueError: for an unknown name or parameter, with the closest known one, and for a
            parameter of another type than its class asks for, or out of range.

    Example:
        >>> from tfrec_feedback.schema import Feature, FeedbackSequence, Identity, Schema
        >>> kinds = ("click", "unclick", "dislike")
        >>> schema = Schema(
        ...     context=(Feature("hour", Identity(24)),),
        ...     candidate=(Feature("item_id", Identity(100)),),
        ...     histories=[FeedbackSequence(kind, ("item_id",)) for kind in kinds],
        ... )
        >>> model = build_model("dfn", schema, embedding_dim=8, num_heads=2)
        >>> sorted(model(empty_request(schema)))
        ['ctr', 'dislike']
    """
    if name not in MODELS:
        raise ValueError(f"Unknown model {name!r}; known: {sorted(MODELS)}.{suggest(name, MODELS)}")
    cls, preset = MODELS[name]
    known = model_parameters(name)
    for key in params:
        if key not in known:
            raise ValueError(
                f"Model {name!r} has no parameter {key!r}; it takes {sorted(known)}."
                f"{suggest(key, known)}"
            )
    check_types(f"Model {name!r}", params, *_constructors(cls))
    model = cls(schema, **{"name": name, **_merged(preset, params)})
    model.build_weights()
    return model


def _merged(preset: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Overrides a preset; groups of options are overridden option by option."""
    merged = {**preset, **params}
    for key, value in params.items():
        if isinstance(value, Mapping) and isinstance(preset.get(key), Mapping):
            merged[key] = {**preset[key], **value}
    return merged


def model_parameters(name: str) -> dict[str, Any]:
    """Returns the parameters of a model and their defaults, the preset's included."""
    cls, preset = MODELS[name]
    defaults: dict[str, Any] = {}
    for constructor in _constructors(cls):
        for key, parameter in inspect.signature(constructor).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                defaults[key] = parameter.default
    return {**defaults, **preset}


def _constructors(cls: type[FeedbackModel]) -> list[Callable[..., None]]:
    """Returns the constructors that a model's parameters pass through, its own last."""
    owners = [owner for owner in reversed(cls.__mro__) if issubclass(owner, FeedbackModel)]
    return [owner.__init__ for owner in owners]


__all__ = [
    "AFM",
    "BASELINES",
    "CDAE",
    "DCN",
    "DFN",
    "DIEN",
    "DIN",
    "DMT",
    "DSIN",
    "DUMN",
    "FM",
    "GMF",
    "MODELS",
    "NFM",
    "NMTR",
    "NR",
    "PNN",
    "RECOMMENDERS",
    "AutoInt",
    "DeepFM",
    "FeedbackModel",
    "NeuMF",
    "Recommender",
    "WideDeep",
    "build_model",
    "empty_request",
    "model_parameters",
]
