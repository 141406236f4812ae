"""What a loss that doubts clicks has done to them: numpy arrays in, numbers out.

A *false positive* is a click that was a mistake, a true one any other. All counts are of clicks
that the loss met in training, window by window of some steps.

Reference: Wang et al., 2021, Denoising Implicit Feedback for Recommendation (ADT), sections 3.1 and
5.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

NUM_GROUPS = 4
"""Groups of equally many interactions that users and items are cut into."""

MOST_DROPPED = 0.5
MOST_TIMES_OVERALL = 2.0
FEWEST_DROPPED = 20

GROUP_NAMES = {
    "users": ("least active", "less active", "more active", "most active"),
    "items": ("least popular", "less popular", "more popular", "most popular"),
}

Series = Mapping[str, np.ndarray]
"""Windows: `step` (updates done at its end) and the sums of
`tfrec_feedback.models.denoising_monitor.SUMS`, `[W]` each.
"""


@dataclasses.dataclass(frozen=True)
class Quality:
    """How well a loss tells false positives from true ones, `[W]` or scalar each.

    What cannot be said is NaN: a share of nothing, and false positives where the truth is unknown.

    Attributes:
        drop_rate: of the schedule, mean over the window's batches.
        dropped: share of the positives that was dropped.
        recall: share of the false positives that was dropped.
        precision: share of what was dropped that is false positives.
        random_recall: recall of dropping as many positives at random: the share dropped. The paper
            gives the drop rate eps here, and means the share of the positives: of a batch with one
            negative for each positive, `loss.drop_base="batch"` drops 2 eps of the positives.
        random_precision: precision of dropping at random: the share of false positives.
        loss_true: mean cross entropy of true positives, in nats.
        loss_false: of false positives.
        weight_true: mean of what the losses of true positives are multiplied by.
        weight_false: of false positives.
    """

    drop_rate: np.ndarray
    dropped: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    random_recall: np.ndarray
    random_precision: np.ndarray
    loss_true: np.ndarray
    loss_false: np.ndarray
    weight_true: np.ndarray
    weight_false: np.ndarray


def quality(series: Series) -> Quality:
    """Returns the quality in every window.

    Example:
        >>> sums = {"batches": 1, "elements": 20, "drop_rate": 0.2, "positives": 10, "loss": 7.0,
        ...         "dropped": 4, "weight": 6.0, "known": 10, "false_positives": 5,
        ...         "loss_false": 5.0, "dropped_false": 3, "weight_false": 2.0}
        >>> found = quality({name: np.array([value]) for name, value in sums.items()})
        >>> found.recall.tolist(), found.precision.tolist(), found.random_precision.tolist()
        ([0.6], [0.75], [0.5])
    """
    positives, false = series["positives"], series["false_positives"]
    unknown = series["known"] < positives
    true = np.where(unknown, 0, positives - false)
    dropped = _share(series["dropped"], positives)

    def where_known(values: np.ndarray) -> np.ndarray:
        return np.where(unknown, np.nan, values)

    return Quality(
        drop_rate=_share(series["drop_rate"], series["batches"]),
        dropped=dropped,
        recall=where_known(_share(series["dropped_false"], false)),
        precision=where_known(_share(series["dropped_false"], series["dropped"])),
        random_recall=dropped,
        random_precision=where_known(_share(false, positives)),
        loss_true=_share(series["loss"] - series["loss_false"], true),
        loss_false=where_known(_share(series["loss_false"], false)),
        weight_true=_share(series["weight"] - series["weight_false"], true),
        weight_false=where_known(_share(series["weight_false"], false)),
    )


def overall(series: Series) -> Quality:
    """Returns the quality over all windows, one number each."""
    sums = {name: np.sum(values, keepdims=True) for name, values in series.items()}
    found = quality(sums)
    return Quality(**{name: values[0] for name, values in vars(found).items()})


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, NaN where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    found = np.full(np.broadcast_shapes(np.shape(part), whole.shape), np.nan)
    return np.divide(part, whole, out=found, where=whole > 0)


@dataclasses.dataclass(frozen=True)
class GroupCounts:
    """Positives of groups of users or items, the least active or popular first; `[..., G]` each.

    Attributes:
        rows: users or items in the group.
        largest: most positives that one of them has.
        positives: positives that the loss met.
        dropped: how many of them it dropped.
    """

    rows: np.ndarray
    largest: np.ndarray
    positives: np.ndarray
    dropped: np.ndarray

    def share(self) -> np.ndarray:
        """Returns the share of its positives that every group lost; NaN for a group of nobody."""
        return _share(self.dropped, self.positives)


def group_counts(
    groups: np.ndarray, positives: np.ndarray, dropped: np.ndarray, num_groups: int = NUM_GROUPS
) -> GroupCounts:
    """Sums what users, or items, lost, by their group.

    Args:
        groups: `[U]`, the group of every user, from 0: by `full_ranking.sparsity_groups`.
        positives: `[U]`.
        dropped: `[U]`.
        num_groups: G.

    Example:
        >>> counts = group_counts(np.array([0, 0, 1]), np.array([1, 2, 4]), np.array([1, 2, 1]), 2)
        >>> counts.rows.tolist(), counts.largest.tolist(), counts.share().tolist()
        ([2, 1], [2, 4], [1.0, 0.25])
    """
    largest = np.zeros(num_groups)
    np.maximum.at(largest, groups, positives)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(groups, weights=values, minlength=num_groups)

    return GroupCounts(
        rows=np.bincount(groups, minlength=num_groups),
        largest=largest.astype(np.int64),
        positives=summed(positives).astype(np.int64),
        dropped=summed(dropped).astype(np.int64),
    )


@dataclasses.dataclass(frozen=True)
class EatenGroup:
    """A group that loses too many of its clicks.

    Attributes:
        kind: `"users"` or `"items"`.
        name: of the group, such as `"least active"`.
        largest: most clicks that one of the group has.
        share: of the group's clicks that were dropped.
        overall: of all clicks.
    """

    kind: str
    name: str
    largest: int
    share: float
    overall: float


def eaten_groups(
    counts: Mapping[str, GroupCounts], fewest: int = FEWEST_DROPPED
) -> Sequence[EatenGroup]:
    """Finds groups that lose more than half of their clicks, or twice as many as all together.

    Hard to believe is not wrong: rare items and quiet users have large losses as well, and a model
    that never learns from them does not get to know them.

    Args:
        counts: of one epoch: `GroupCounts` `[G]` of `"users"` and `"items"`.
        fewest: groups that lose fewer clicks than this are not named: their share is chance.
    """
    found = []
    for kind, of_kind in counts.items():
        total = float(_share(of_kind.dropped.sum(), of_kind.positives.sum()))
        shares = of_kind.share()
        for group, share in enumerate(shares.tolist()):
            too_much = share > MOST_DROPPED or share > MOST_TIMES_OVERALL * total
            if too_much and of_kind.dropped[group] >= fewest:
                name, largest = group_name(kind, group), int(of_kind.largest[group])
                found.append(EatenGroup(kind, name, largest, share, total))
    return found


def group_name(kind: str, group: int) -> str:
    """Names a group of `"users"` or `"items"`."""
    return GROUP_NAMES[kind][group]
