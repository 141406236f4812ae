"""Checks that nothing from after an exposure reached the inputs of its request.

Three ways a leak gets in, and three checks: a history that reaches past its request
(`check_records`), an input that is measured after the exposure (`check_names`), and the same under
an innocent name (`check_statistics`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec_feedback.data.history import lag_milliseconds
from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.data.protobuf import (
    decode_example,
    decode_integers,
    packed_values,
    raw_features,
)
from tfrec_feedback.data.records import REQUEST_ID, TIMESTAMP, history_timestamp_key
from tfrec_feedback.data.tfrecord import read_records
from tfrec_feedback.schema import Schema

POST_EXPOSURE = frozenset(
    "click like dislike unclick hate follow comment forward share favorite collect download "
    "is_click is_like is_hate is_dislike is_follow is_comment is_forward is_share is_favorite "
    "is_profile_enter profile_enter long_view is_long_view valid_play effective_view finish "
    "is_finish complete completion completion_rate play play_time play_duration play_ratio "
    "watch_time watch_duration watch_ratio view_time view_duration dwell dwell_time stay_time "
    "profile_stay_time comment_stay_time reading_time read_time label".split()
)
"""Names that logs give to what happens after an exposure."""

MAX_AUC = 0.95
_MIN_POSITIVES = 50
_NUM_BINS = 64
_PREFIX = re.compile(r"^(?:user|item|context|video)_")
_UNIT = re.compile(r"_(?:ms|s|sec|secs|seconds|millis|milliseconds)$")


@dataclasses.dataclass(frozen=True)
class Leak:
    """One finding.

    Attributes:
        where: the feature, or the file and record.
        problem: what is wrong.
        remedy: what to do.
    """

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem} {self.remedy}"


class LeakError(ValueError):
    """Information from after the exposure reached the inputs.

    Attributes:
        leaks: every finding.
    """

    def __init__(self, leaks: list[Leak]):
        self.leaks = leaks
        lines = "\n".join(f"- {leak}" for leak in leaks)
        super().__init__(f"{len(leaks)} leak(s) found:\n{lines}")


def check_names(schema: Schema, post_exposure: Iterable[str] = ()) -> list[Leak]:
    """Finds inputs that are named like what is only known after the exposure.

    Args:
        schema: the inputs.
        post_exposure: names the source declares, besides the well-known ones; with or without a
            `user_`, `item_` or `context_` prefix.
    """
    declared = {_bare(name) for name in post_exposure} | set(post_exposure)
    leaks = []
    for feature in schema.features:
        names = {feature.name, _bare(feature.name)}
        if names & declared:
            problem = "the source declares this column as known only after the exposure."
        elif names & POST_EXPOSURE:
            problem = "by its name, this is known only after the exposure."
        else:
            continue
        leaks.append(
            Leak(
                f"feature {feature.name!r}",
                problem,
                "Remove the column; it may enter through histories of earlier events only.",
            )
        )
    return leaks


def _bare(name: str) -> str:
    bare = _PREFIX.sub("", name)
    return _UNIT.sub("", bare)


def check_statistics(schema: Schema, events: pd.DataFrame, train_rows: np.ndarray) -> list[Leak]:
    """Finds inputs that predict a feedback too well to be known before it.

    For each feature, the rate of the feedback per value is learnt on the first half of the train
    rows in time and scored on the second half. Numbers are tried by value and in 64 bins.

    Args:
        schema: the inputs.
        events: canonical log.
        train_rows: its train rows.
    """
    rows = train_rows[np.argsort(events["timestamp"].to_numpy()[train_rows], kind="stable")]
    half = len(rows) // 2
    leaks = []
    for feature in schema.features:
        column = events[feature.name].iloc[rows]
        for target in ("click", "dislike"):
            labels = events[target].to_numpy()[rows] == 1
            if labels[half:].sum() < _MIN_POSITIVES:
                continue
            auc = max(_single_feature_auc(codes, labels, half) for codes in _codes(column, half))
            if auc > MAX_AUC:
                leaks.append(
                    Leak(
                        f"feature {feature.name!r}",
                        f"alone, it predicts {target!r} with AUC {auc:.4f} (limit {MAX_AUC}).",
                        "It is probably measured after the exposure: remove the column, or "
                        "compute it from earlier events.",
                    )
                )
    return leaks


def _codes(column: pd.Series, half: int) -> list[np.ndarray]:
    by_value = pd.factorize(column)[0]
    if column.dtype.kind not in "iuf":
        return [by_value]
    values = column.to_numpy(np.float64)
    cuts = np.quantile(values[:half], np.arange(1, _NUM_BINS) / _NUM_BINS)
    return [by_value, np.searchsorted(np.unique(cuts), values, side="right")]


def _single_feature_auc(codes: np.ndarray, labels: np.ndarray, half: int) -> float:
    size = int(codes.max()) + 1
    shown = np.bincount(codes[:half], minlength=size)
    positive = np.bincount(codes[:half], weights=labels[:half], minlength=size)
    # One pseudo-exposure at the overall rate: values never seen before score the average.
    rate = (positive + labels[:half].mean()) / (shown + 1)
    return exact_auc(labels[half:], rate[codes[half:]])


def exact_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the exact area under the ROC curve, ties counted half; 0.5 with one class only.

    Example:
        >>> exact_auc(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.4]))
        0.875
    """
    positive = np.asarray(labels, bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return 0.5
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    above = middle_rank[inverse][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def check_records(manifest: Manifest, schema: Schema) -> list[Leak]:
    """Reads every shard and finds events that were not yet known at their request.

    Events of histories and of samples alike.

    Args:
        manifest: the prepared folder; its option `lag_seconds` counts.
        schema: the histories and samples to check.

    Returns:
        The first such event of every history, or its samples, and shard.
    """
    lag = lag_milliseconds(float(manifest.options.get("lag_seconds") or 0.0))  # type: ignore[arg-type]
    sequences = (*schema.histories, *schema.samples)
    keys = [history_timestamp_key(sequence.name) for sequence in sequences]
    leaks = []
    for split in manifest.splits.values():
        for shard in split.shards:
            leaks += check_shard(manifest.directory / shard.file, shard.file, keys, lag)
    return leaks


def check_shard(path: Path, name: str, keys: list[str], lag_ms: int = 0) -> list[Leak]:
    """Finds the first late event of every history in one shard; see `check_records`."""
    offsets: list[int] = []
    packed: dict[str, list[bytes]] = {key: [] for key in (TIMESTAMP, *keys)}
    wanted = {key.encode() for key in packed}
    for offset, record in read_records(path):
        offsets.append(offset)
        found = raw_features(record, wanted)
        for key, parts in packed.items():
            if key not in found:
                return [_missing(name, offset, key)]
            parts.append(packed_values(found[key][1]))
    times = decode_integers(b"".join(packed[TIMESTAMP]))
    leaks = []
    for key in keys:
        values, owner = _values_and_owners(packed[key])
        late = np.flatnonzero(values >= times[owner] - lag_ms)
        if len(late):
            index = int(owner[late[0]])
            where = _record_name(path, name, offsets[index])
            problem = (
                f"{key} holds {values[late[0]]}, which is not before the request's {TIMESTAMP} "
                f"{times[index]} minus the lag of {lag_ms} ms."
            )
            remedy = f"{len(late)} such events in this shard. Prepare the data again."
            leaks.append(Leak(where, problem, remedy))
    return leaks


def _values_and_owners(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Decodes packed integers, and says for each which part it is from."""
    data = np.frombuffer(b"".join(parts), np.uint8)
    ended = np.concatenate([[0], np.cumsum(data < 0x80)])
    ends = np.cumsum([0, *map(len, parts)])
    return decode_integers(data), np.repeat(np.arange(len(parts)), np.diff(ended[ends]))


def _record_name(path: Path, name: str, offset: int) -> str:
    record = next(record for at, record in read_records(path) if at == offset)
    request = decode_example(record).get(REQUEST_ID, [b"?"])[0]
    return f"{name}, record at byte {offset}, request {request!r}"


def _missing(name: str, offset: int, key: str) -> Leak:
    return Leak(
        f"{name}, record at byte {offset}",
        f"it has no {key}, so its histories cannot be checked.",
        "Prepare the data again.",
    )
