"""What a model knows of its users, as numpy arrays, and whether its memories tell users apart."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.records import USER_KEY
from tfrec_feedback.models.base import INTERESTS

SNAPSHOTS = "interests"
"""Folder of a run's snapshots."""

SLOTS_ALIKE = 0.9
"""Mean cosine of the slots above which a memory counts as one vector.

Fresh slots have 0; docs/results.md has what trained ones end at.
"""

READS_ALIKE = 0.9999
"""Mean cosine of the reads above which all users count as reading the same.

Higher than one would think, since reads share the mean of the slots.
"""

_FEWEST_REQUESTS = 100

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Interests:
    """What a model knows of R users at the moment of a request each, by feedback.

    Attributes:
        pooled: `[R, E]`, the history read for the request's first candidate.
        short_term: `[R, E]`, the same after purification.
        read: `[R, W]`, the long-term interest; empty for a model without memory.
        read_weights: `[R, M]`, sums to 1; empty for a model without memory.
        length: `[R]`, events in the history.
        labels: `[R]` by task, of the first candidate.
        users: `[R]`, text.
    """

    pooled: Arrays
    short_term: Arrays
    read: Arrays
    read_weights: Arrays
    length: Arrays
    labels: Arrays
    users: np.ndarray

    def save(self, path: str | Path) -> None:
        """Writes an `.npz` file, in one move: there is never half a file."""
        groups = {k: v for k, v in vars(self).items() if k != "users"}
        flat = {f"{group}/{name}": x for group, of in groups.items() for name, x in of.items()}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}")
        np.savez(temporary, users=self.users, **flat)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | Path) -> Interests:
        """Reads what `save` wrote."""
        groups: dict[str, Arrays] = {
            field.name: {} for field in dataclasses.fields(cls) if field.name != "users"
        }
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                group, _, name = key.partition("/")
                if name:
                    groups[group][name] = file[key]
            return cls(users=file["users"], **groups)


def collect_interests(
    model: tf.keras.Model, dataset: tf.data.Dataset, requests: int = 1024
) -> Interests:
    """Reads what a model knows of the users of a dataset's first requests.

    Changes nothing: no memory is written, no random number drawn.

    Args:
        model: a feedback model, with or without memory.
        dataset: batches of `request_dataset(..., metadata=True)`.
        requests: at most how many; those without candidates are left out.

    Returns:
        One entry a request, for its first candidate.

    Raises:
        ValueError: when the dataset holds no request with a candidate.

    Example:
        >>> dataset = request_dataset(  # doctest: +SKIP
        ...     manifest, "validation", 256, encoder=model.encoder, metadata=True
        ... )
        >>> interests = collect_interests(model, dataset)  # doctest: +SKIP
        >>> memory_health(model, interests)["click"]["read_cosine"]  # doctest: +SKIP
        0.08
    """
    parts: dict[tuple[str, str], list[np.ndarray]] = {}
    count = 0
    for features, labels, _, identity in dataset:
        kept = features["num_candidates"].numpy() > 0
        if not kept.any():
            continue
        known = model(features, training=False, return_interests=True)[INTERESTS]
        columns = {("pooled", name): x[:, 0] for name, x in known.pooled.items()}
        columns |= {("short_term", name): x[:, 0] for name, x in known.short_term.items()}
        for name, access in known.long_term.items():
            columns["read", name] = access.read[:, 0]
            columns["read_weights", name] = access.read_weights[:, 0]
        for name in known.pooled:
            columns["length", name] = features[model.schema.history(name).length]
        columns |= {("labels", task): x[:, 0] for task, x in labels.items()}
        columns["users", ""] = identity[USER_KEY]
        for key, column in columns.items():
            parts.setdefault(key, []).append(column.numpy()[kept])
        count += int(kept.sum())
        if count >= requests:
            break
    if not count:
        raise ValueError("The dataset holds no request with a candidate: no interests to read.")
    joined = {key: np.concatenate(columns)[:requests] for key, columns in parts.items()}
    return Interests(
        users=np.array([user.decode("utf-8", "replace") for user in joined["users", ""]]),
        **{
            field.name: {name: x for (group, name), x in joined.items() if group == field.name}
            for field in dataclasses.fields(Interests)
            if field.name != "users"
        },
    )


def memory_health(model: tf.keras.Model, interests: Interests) -> dict[str, dict[str, float]]:
    """Measures whether the memories still tell users apart.

    Args:
        model: a model with a memory; another has nothing to report.
        interests: of `collect_interests`, of many users.

    Returns:
        By feedback (a shared memory, too, is read by every feedback in its own way):

        - `slot_cosine`: mean cosine of two different slots; 0 where there is one slot alone.
        - `read_cosine`: mean cosine of the reads of two requests; 0 of one request alone.
        - `read_entropy`: mean entropy of the read weights over log M; 1 reads all slots alike, 0
          a single one.
        - `slots_in_use`: the exponential of the entropy of the mean read weights, over M; 1 when
          all requests together use all slots evenly.
        - `requests`: how many requests the last three are of: those with a history of the
          feedback, or all where fewer than 100 have one.
    """
    if model.user_memory is None:
        return {}
    health = {}
    for name in model.user_memory.opposites:
        kept = interests.length[name] > 0
        if kept.sum() < _FEWEST_REQUESTS:
            kept = np.ones_like(kept)
        weights = interests.read_weights[name][kept].astype(np.float64)
        slots = weights.shape[1]
        health[name] = {
            "slot_cosine": mean_cosine(model.user_memory.memory(name).memory.numpy()),
            "read_cosine": mean_cosine(interests.read[name][kept]),
            "read_entropy": float(np.mean(_entropy(weights)) / np.log(max(slots, 2))),
            "slots_in_use": float(np.exp(_entropy(weights.mean(axis=0))) / slots),
            "requests": float(kept.sum()),
        }
    return health


def collapsed(health: dict[str, dict[str, float]]) -> list[str]:
    """Returns the feedbacks whose memory has become one vector, the same for every user.

    A memory whose slots point one way (`slot_cosine` above 0.9), or whose reads do
    (`read_cosine` above 0.9999), see `SLOTS_ALIKE` and `READS_ALIKE`.

    Example:
        >>> collapsed({"click": {"slot_cosine": 0.9994, "read_cosine": 1.0}})
        ['click']
    """
    return [
        name
        for name, measured in health.items()
        if measured["slot_cosine"] > SLOTS_ALIKE or measured["read_cosine"] > READS_ALIKE
    ]


def mean_cosine(vectors: np.ndarray) -> float:
    """Returns the mean cosine of all pairs of different rows of `[K, D]`; 0 for one row.

    A row of zeros has no direction: its cosines count as 0.
    """
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0.0)
    pairs = len(units) * (len(units) - 1)
    # |sum of all|^2 holds every pair twice, and every row with itself.
    total = np.sum(units.sum(axis=0) ** 2) - np.sum(units**2)
    return float(total / max(pairs, 1))


def snapshot_steps(total: int, count: int) -> list[int]:
    """Returns `count` steps from 0 to `total`, evenly spaced; one alone is the last.

    Example:
        >>> snapshot_steps(total=300, count=4)
        [0, 100, 200, 300]
    """
    if count == 1:
        return [total]
    return sorted({round(step) for step in np.linspace(0.0, total, count).tolist()})


def snapshot_path(run: str | Path, step: int) -> Path:
    """Returns where the snapshot of a step is kept in a run's folder."""
    return Path(run) / SNAPSHOTS / f"step-{step:08d}.npz"


def load_snapshots(run: str | Path) -> dict[int, Interests]:
    """Returns a run's snapshots by step, in order; none where there are none."""
    files = sorted((Path(run) / SNAPSHOTS).glob("step-*.npz"))
    return {int(path.stem.removeprefix("step-")): Interests.load(path) for path in files}


def _entropy(weights: np.ndarray) -> np.ndarray:
    """Returns the entropy of distributions `[..., M]` in nats; 0 log 0 is 0."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0.0)
    return -np.sum(weights * logs, axis=-1)
