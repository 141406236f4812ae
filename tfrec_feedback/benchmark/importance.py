"""Permutation importance: how much worse a model ranks when one input is shuffled."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec_feedback import metrics
from tfrec_feedback.evaluation import Predictions, predict, scoring_function
from tfrec_feedback.schema import Schema

Tensors = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Importance:
    """What a model loses without the order of one input.

    Attributes:
        group: name of the feature or history.
        kind: `context`, `candidate` or `history`.
        task: whose ranking is judged.
        auc: drop of the AUC, mean over the repeats.
        auc_deviation: its standard deviation over the repeats.
        gauc: drop of the user-level GAUC.
        gauc_deviation: its standard deviation.
    """

    group: str
    kind: str
    task: str
    auc: float
    auc_deviation: float
    gauc: float
    gauc_deviation: float


@dataclasses.dataclass(frozen=True)
class Group:
    """Tensors of a request batch that are shuffled together.

    Attributes:
        name: of the feature or history.
        kind: `context`, `candidate` or `history`.
        tensors: their names.
    """

    name: str
    kind: str
    tensors: tuple[str, ...]


def permutation_importance(
    model: tf.keras.Model, dataset: tf.data.Dataset, *, repeats: int = 3, seed: int = 0
) -> list[Importance]:
    """Shuffles each input in turn and says how much worse the model ranks.

    Context features and histories are exchanged between the requests of a batch, candidate
    features between all its candidates; the values (and their number) of a multi-valued feature
    move together, and so do the events and the length of a history. An item's feature stays in
    place in the histories. Use large batches: values are exchanged inside them alone.

    Features that carry the same information hide each other: the model still reads the one while
    the other is shuffled.

    Args:
        model: a feedback model.
        dataset: raw requests, `request_dataset(..., metadata=True)` without encoder.
        repeats: shuffles a group.
        seed: of the first shuffle; the others count on from it.

    Returns:
        One entry a group and task, in the order of the schema.

    Raises:
        ValueError: when the requests are encoded already, or there are none.

    Example:
        >>> model, _ = load_run("runs/dfn")  # doctest: +SKIP
        >>> dataset = request_dataset(manifest, "test", 1024, metadata=True)  # doctest: +SKIP
        >>> permutation_importance(model, dataset)[0].group  # doctest: +SKIP
        'user_id'

    Reference: Breiman, 2001, Random Forests, Machine Learning 45, section 10.
    """
    if "candidate_rows" in dataset.element_spec[0]:
        raise ValueError(
            "permutation_importance needs raw requests; these are encoded. Make the dataset "
            "without encoder=."
        )
    groups = feature_groups(model.schema)
    needed = [spec.name for spec in model.schema.inputs()]
    score = scoring_function(model)
    generators = [np.random.default_rng(seed + repeat) for repeat in range(repeats)]

    def score_all(features: Tensors) -> Tensors:
        features = {name: features[name] for name in needed}
        scores = dict(score(features))
        for group in groups:
            for repeat, rng in enumerate(generators):
                found = score(permuted(features, group, rng))
                scores |= {_key(task, group, repeat): x for task, x in found.items()}
        return scores

    predictions = predict(model, dataset, score=score_all)
    tasks = list(predictions.labels)
    return [_importance(predictions, task, group, repeats) for group in groups for task in tasks]


def feature_groups(schema: Schema) -> list[Group]:
    """Returns each context feature, candidate feature and history with its tensors."""
    specs = [spec for spec in schema.inputs() if spec.name != "num_candidates"]
    groups = []
    for kind, features in (("context", schema.context), ("candidate", schema.candidate)):
        for feature in features:
            own = (feature.name, f"{feature.name}_count")
            names = [s.name for s in specs if s.role == kind and s.name in own]
            groups.append(Group(feature.name, kind, tuple(names)))
    for history in schema.histories:
        names = [spec.name for spec in specs if spec.sequence == history.name]
        groups.append(Group(history.name, "history", tuple(names)))
    return groups


def permuted(features: Mapping[str, tf.Tensor], group: Group, rng: np.random.Generator) -> Tensors:
    """Returns a batch with one group shuffled; padded candidates stay where they are.

    Args:
        features: raw tensors, `[R, ...]`.
        group: what is shuffled.
        rng: randomness.
    """
    sizes = features["num_candidates"].numpy()
    if group.kind != "candidate":
        order = rng.permutation(len(sizes))
        return {**features, **{name: tf.gather(features[name], order) for name in group.tensors}}
    width = int(features[group.tensors[0]].shape[1])
    valid = np.flatnonzero(np.arange(width)[None] < sizes[:, None])
    order = np.arange(len(sizes) * width)
    order[valid] = rng.permutation(valid)
    shuffled = {}
    for name in group.tensors:
        shape = tf.shape(features[name])
        flat = tf.reshape(features[name], tf.concat([[-1], shape[2:]], 0))
        shuffled[name] = tf.reshape(tf.gather(flat, order), shape)
    return {**features, **shuffled}


def write_importance(found: Sequence[Importance], path: Path) -> None:
    """Writes a CSV file, one line an entry."""
    names = [field.name for field in dataclasses.fields(Importance)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(entry) for entry in found)


def _key(task: str, group: Group, repeat: int) -> str:
    return f"{task}/{group.kind}/{group.name}/{repeat}"


def _importance(predictions: Predictions, task: str, group: Group, repeats: int) -> Importance:
    labels, users = predictions.labels[task], predictions.users
    whole = predictions.logits[task]
    drops = []
    for repeat in range(repeats):
        logits = predictions.logits[_key(task, group, repeat)]
        auc = metrics.auc(labels, whole) - metrics.auc(labels, logits)
        gauc = metrics.grouped_auc(labels, whole, users) - metrics.grouped_auc(
            labels, logits, users
        )
        drops.append((auc, gauc))
    (auc, gauc), (auc_spread, gauc_spread) = np.mean(drops, axis=0), np.std(drops, axis=0)
    return Importance(
        group.name,
        group.kind,
        task,
        float(auc),
        float(auc_spread),
        float(gauc),
        float(gauc_spread),
    )
