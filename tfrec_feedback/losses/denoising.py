"""Adaptive denoising by name."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from tfrec_feedback.losses.elements import ElementLoss
from tfrec_feedback.losses.reweighting import Reweighted
from tfrec_feedback.losses.truncated import Truncated
from tfrec_feedback.schema import suggest

DENOISING = {"ce": None, "tce": Truncated, "rce": Reweighted}
"""What the names of `denoising_loss` stand for."""


def denoising_loss(
    base: ElementLoss, name: str = "ce", *, reduction: str | None = None, **options: Any
) -> tf.keras.losses.Loss:
    """Returns `base`, or `base` with fewer or lighter doubtful elements.

    Args:
        base: loss of the elements.
        name: `"ce"` for `base` itself, `"tce"` for `Truncated`, `"rce"` for `Reweighted`.
        reduction: by default that of `base`.
        **options: keyword arguments of the named class.

    Raises:
        ValueError: for unknown names, and options that the named loss does not have.

    Example:
        >>> from tfrec_feedback.losses import FeedbackCrossEntropy
        >>> denoising_loss(FeedbackCrossEntropy(), "rce", beta=0.1).beta
        0.1

    Reference: Wang et al., 2021, Denoising Implicit Feedback for Recommendation (ADT).
    """
    if name not in DENOISING:
        raise ValueError(
            f"Unknown loss {name!r}; known: {list(DENOISING)}.{suggest(name, DENOISING)}"
        )
    known = _options(name)
    for option in options:
        if option not in known:
            owners = [other for other in DENOISING if option in _options(other)]
            hint = f" It is one of {owners[0]!r}." if owners else suggest(option, known)
            raise ValueError(f"Loss {name!r} has no option {option!r}; it has {known}.{hint}")
    wrapper = DENOISING[name]
    if wrapper is not None:
        return wrapper(base, reduction=reduction, **options)
    if reduction not in (None, base.reduction):
        raise ValueError(f"Loss 'ce' is its base, whose reduction is {base.reduction!r}.")
    return base


def _options(name: str) -> list[str]:
    wrapper = DENOISING[name]
    if wrapper is None:
        return []
    common = ("base", "reduction", "name")
    return [option for option in inspect.signature(wrapper).parameters if option not in common]
