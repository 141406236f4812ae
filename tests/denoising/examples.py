"""Diagnostics that can be checked by hand."""

import numpy as np

from tfrec_feedback.denoising.analysis import GroupCounts
from tfrec_feedback.denoising.record import DenoisingRecord

# Two windows; the second drops 4 of 10 clicks, 3 of them among the 5 that are false.
WINDOWS = {
    "step": [10, 20],
    "batches": [10, 10],
    "elements": [20, 20],
    "drop_rate": [0.0, 2.0],
    "positives": [10, 10],
    "loss": [7.0, 9.0],
    "dropped": [0, 4],
    "weight": [10.0, 6.0],
    "known": [10, 10],
    "false_positives": [4, 5],
    "loss_false": [4.0, 6.0],
    "dropped_false": [0, 3],
    "weight_false": [4.0, 2.0],
}


def series(**changes):
    return {name: np.array(values, float) for name, values in {**WINDOWS, **changes}.items()}


def counts(dropped, positives=(100, 100, 100, 100), **changes):
    dropped, positives = np.array(dropped), np.array(positives)
    rows, largest = np.array([50, 20, 10, 4]), np.array([3, 8, 15, 60])
    return GroupCounts(
        **{"rows": rows, "largest": largest, **changes}, positives=positives, dropped=dropped
    )


def epochs(*of_epochs):
    """`[E, G]` from counts of one epoch each."""
    return GroupCounts(
        **{name: np.stack([getattr(c, name) for c in of_epochs]) for name in vars(of_epochs[0])}
    )


def record(loss="tce", groups=None, **changes):
    if groups is None and loss == "tce":
        mild, eaten = counts([5, 5, 5, 5]), counts([90, 30, 20, 20])
        groups = {"users": epochs(mild, mild), "items": epochs(mild, eaten)}
    return DenoisingRecord(loss, series(**changes), groups or {})
