"""The loss of the click task by name, as `--set loss.name=tce` says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrec_feedback.losses import (
    DENOISING,
    BPRLoss,
    FeedbackCrossEntropy,
    HingeLoss,
    SquareLoss,
    denoising_loss,
)
from tfrec_feedback.models.arguments import check_types
from tfrec_feedback.schema import suggest

BASES: dict[str, Callable[..., tf.keras.losses.Loss]] = {
    "cross_entropy": FeedbackCrossEntropy,
    "square": SquareLoss,
    "hinge": HingeLoss,
    "bpr": BPRLoss,
}
"""Losses of an element that may be truncated or reweighted."""


def click_loss(
    feedback_weights: tuple[float, float, float],
    drop_base: str,
    /,
    *,
    base: str = "cross_entropy",
    name: str = "ce",
    **options: Any,
) -> tf.keras.losses.Loss:
    """Builds the loss of the click task.

    Args:
        feedback_weights: of clicks, unclicks and dislikes; cross entropy alone has them.
        drop_base: what a drop rate is a share of, unless `options` say.
        base: `"cross_entropy"`, `"square"`, `"hinge"` or `"bpr"`.
        name: `"ce"` leaves the base loss as it is; `"tce"` drops the clicks with the largest loss,
            ever more of them until `num_steps`; `"rce"` weighs every exposure by the model's own
            confidence in its label.
        **options: of `Truncated` (`max_rate`, `num_steps`, `drop_base`, `rounding`, `scope`,
            `max_positive_fraction`) or `Reweighted` (`beta`, `negatives`).

    Raises:
        ValueError: for unknown names and options, with the closest known one, and for options of
            another type.

    Reference: Wang et al., 2021, Denoising Implicit Feedback for Recommendation, WSDM.
    """
    wrappers = [loss.__init__ for loss in DENOISING.values() if loss is not None]
    check_types("loss", {"base": base, "name": name, **options}, *wrappers, click_loss)
    if "reduction" in options:
        raise ValueError("loss has no option 'reduction': a model sums over its candidates.")
    if base not in BASES:
        raise ValueError(
            f"loss.base must be one of {list(BASES)}, got {base!r}.{suggest(base, BASES)}"
        )
    if base == "cross_entropy":
        loss = BASES[base](*feedback_weights, reduction="sum")
    elif feedback_weights != (1.0, 1.0, 1.0):
        raise ValueError(
            f"Only cross entropy weighs feedbacks differently: with loss.base={base!r} set "
            f"model.dislike_weight=1 (weights of click, unclick, dislike: {feedback_weights})."
        )
    else:
        loss = BASES[base](reduction="sum")
    if name == "tce":
        options = {"drop_base": drop_base, **options}
    return denoising_loss(loss, name, reduction="sum", **options)
