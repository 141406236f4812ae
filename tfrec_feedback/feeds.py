"""What a training run reads: batches of an epoch, and how an epoch is judged."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec_feedback.config import Config
from tfrec_feedback.data.dataset import (
    check_shards,
    epoch_seed,
    naming_damage,
    num_batches,
    request_dataset,
)
from tfrec_feedback.data.events import FLAGS
from tfrec_feedback.data.interaction_dataset import load_interactions, pair_dataset, user_dataset
from tfrec_feedback.data.manifest import Manifest, Split
from tfrec_feedback.data.records import REQUEST_ID
from tfrec_feedback.evaluation import predict, ranking_metrics, scoring_function
from tfrec_feedback.full_ranking import rank_catalogue, ranking_means
from tfrec_feedback.models import RECOMMENDERS, FeedbackModel, Recommender
from tfrec_feedback.schema import Task

CUTOFFS = (5, 20, 50)
"""K of the ranking metrics."""


class RequestFeed:
    """Impressions, request by request.

    Args:
        config: the run's configuration.
        manifest: prepared data.
        model: what is trained.
        scratch: a folder for intact copies of damaged shards.

    Attributes:
        monitors: metrics that an epoch may be chosen by, the default first.
        skipped_records: damaged records left out.
        num_batches: batches of an epoch.

    Raises:
        ValueError: for settings that are for interactions alone.
    """

    monitors: tuple[str, ...] = ("ctr_auc", "ctr_gauc", "dislike_auc")

    def __init__(self, config: Config, manifest: Manifest, model: FeedbackModel, scratch: Path):
        if config.data.num_negatives is not None:
            raise ValueError(
                f"data.num_negatives={config.data.num_negatives} is for interactions alone: "
                f"{manifest.directory} holds requests with the candidates that were shown. Leave "
                "it out."
            )
        self._config, self._manifest, self._model = config, manifest, model
        self._tasks = {task.name: task for task in model.schema.tasks}
        self.monitors = tuple(name for name in self.monitors if _task(name) in self._tasks)
        self._paths: dict[str, Any] = {"train": None, "validation": None}
        self._requests = {split: manifest.split(split).requests for split in self._paths}
        self.skipped_records = 0
        if config.data.skip_corrupt:
            for split, listed in self._requests.items():
                self._paths[split], stats = check_shards(manifest, split, scratch=scratch)
                self._requests[split] = stats.records
                self.skipped_records += listed - stats.records
        self.num_batches = num_batches(manifest, "train", config.data.batch_size)
        if self.skipped_records:
            # The manifest counts them, and an epoch without them may have fewer batches.
            self.num_batches = sum(1 for _ in self.train(0, 0))
        self._score = scoring_function(model)  # traced once, not every epoch

    def check(self, monitor: str) -> None:
        """Checks that there is something to train on, and to choose an epoch by.

        Args:
            monitor: one of `monitors`.

        Raises:
            ValueError: when a split holds no requests, or validation only one class of the task
                that is monitored.
        """
        for split, requests in self._requests.items():
            _check_requests(self._manifest, split, requests)
        task = self._tasks[_task(monitor)]
        found = self._manifest.split("validation")
        if lacking := _lacking_class(found, task):
            raise ValueError(
                f"train.monitor={monitor!r} is undefined: the validation split of "
                f"{self._manifest.directory} holds no {lacking} of the task {task.name!r} "
                f"({found.candidates} exposures: {found.feedback}). Prepare the data again with a "
                "larger validation split (--split), or choose a metric of another task."
            )

    def train(self, epoch: int, skip: int, metadata: bool = False) -> tf.data.Dataset:
        """Returns the training batches of an epoch, in its own order, without the first ones."""
        memory, monitored = self._model.user_memory, self._model.denoising_monitor is not None
        return request_dataset(
            self._manifest,
            "train",
            self._config.data.batch_size,
            shuffle_seed=epoch_seed(self._config.train.seed, epoch),
            skip_batches=skip,
            paths=self._paths["train"],
            encoder=self._model.encoder,
            samples=memory is not None and bool(memory.sampled),
            metadata=metadata,
            truth=monitored and self._manifest.knows_false_positives,
        )

    def validation(self, model: FeedbackModel) -> tf.data.Dataset:
        """Returns the validation batches, encoded for a model, with metadata."""
        return request_dataset(
            self._manifest,
            "validation",
            self._config.data.batch_size,
            paths=self._paths["validation"],
            encoder=model.encoder,
            metadata=True,
        )

    def validate(self) -> dict[str, float]:
        """Returns AUC and GAUC of every task."""
        return ranking_metrics(
            predict(self._model, self.validation(self._model), score=self._score)
        )

    def naming_damage(self) -> Any:
        """Makes errors of reading say where, inside a `with` block."""
        return naming_damage(self._manifest, *self._paths)

    def describe(self, epoch: int, batch: int) -> str:
        """Names the requests of a batch."""
        identity = next(iter(self.train(epoch, batch, metadata=True)))[3]
        requests = [request.decode() for request in identity[REQUEST_ID].numpy()]
        shown = ", ".join(requests[:5]) + (", ..." if len(requests) > 5 else "")
        return f"{len(requests)} requests: {shown}"


class InteractionFeed:
    """Interactions: positives beside negatives that are drawn anew for every epoch.

    Args:
        config: the run's configuration.
        manifest: prepared interactions.
        model: what is trained.

    Attributes:
        monitors: metrics that an epoch may be chosen by, the usual one first.
        skipped_records: always 0.
        num_batches: batches of an epoch.

    Raises:
        ValueError: for a model that is no recommender, and settings that are for requests alone.
    """

    monitors = tuple(f"{metric}_{k}" for k in (20, 5, 50) for metric in ("ndcg", "recall"))
    skipped_records = 0

    def __init__(self, config: Config, manifest: Manifest, model: FeedbackModel):
        if not isinstance(model, Recommender):
            raise ValueError(
                f"{manifest.directory} holds interactions of users and items, without impressions: "
                f"train a recommender on it ({', '.join(sorted(RECOMMENDERS))}), not "
                f"{config.model.name!r}."
            )
        if config.data.skip_corrupt:
            raise ValueError(
                f"data.skip_corrupt is for records of requests alone: {manifest.directory} holds "
                "interactions, which are read as a whole. Leave it out."
            )
        self._config, self._manifest, self._model = config, manifest, model
        self._table = load_interactions(manifest)
        given = config.data.num_negatives
        self._num_negatives = model.num_negatives if given is None else given
        self._dataset = pair_dataset if model.read_history is None else user_dataset
        self.num_batches = len(self.train(0, 0))

    def check(self, monitor: str) -> None:
        """Checks that there is something to train on, and to choose an epoch by.

        Args:
            monitor: one of `monitors`; all of them are defined where there is a positive.

        Raises:
            ValueError: when a split holds no interactions.
        """
        for split in ("train", "validation"):
            _check_requests(self._manifest, split, self._manifest.split(split).requests)

    def train(self, epoch: int, skip: int) -> tf.data.Dataset:
        """Returns the training batches of an epoch, in its own order, without the first ones."""
        return self._dataset(
            self._table,
            self._model.schema,
            self._config.data.batch_size,
            num_negatives=self._num_negatives,
            seed=self._config.train.seed,
            epoch=epoch,
            skip_batches=skip,
            satisfaction=self._model.reads_satisfaction,
        )

    def validate(self) -> dict[str, float]:
        """Returns recall and NDCG of the validation items among all items."""
        ranked = rank_catalogue(self._model, self._table, "validation", max(CUTOFFS))
        return ranking_means(ranked, CUTOFFS)

    def naming_damage(self) -> Any:
        """Nothing to name: a table that can be loaded can be read."""
        return contextlib.nullcontext()

    def describe(self, epoch: int, batch: int) -> str:
        """Names the users of a batch."""
        users = next(iter(self.train(epoch, batch)))[0]["context_rows"][:, 0].numpy()
        return f"{len(users)} requests, users in rows {sorted(set(users.tolist()))[:5]} and on"


def make_feed(
    config: Config, manifest: Manifest, model: FeedbackModel, scratch: Path
) -> RequestFeed | InteractionFeed:
    """Returns the feed that fits the prepared data; see `RequestFeed` for the arguments."""
    if manifest.format == "interactions":
        return InteractionFeed(config, manifest, model)
    return RequestFeed(config, manifest, model, scratch)


def _task(monitor: str) -> str:
    """Returns the task that a metric is of: `"ctr"` of `"ctr_auc"`."""
    return monitor.partition("_")[0]


def _check_requests(manifest: Manifest, split: str, count: int) -> None:
    if not count:
        raise ValueError(
            f"The {split} split of {manifest.directory} holds no {manifest.format} that could be "
            "read, and training needs some. Prepare the data again, from a log with more for this "
            "split."
        )


def _lacking_class(split: Split, task: Task) -> str | None:
    """Returns which class of a task a split cannot hold, by what it counts; None for neither."""
    counts = split.feedback
    opposed = max((counts[flag] for flag in task.negative), default=0)
    others = sum(counts[flag] for flag in FLAGS if flag not in task.positive)
    counted = [counts[flag] for flag in task.positive]
    if not any(counted) or counts["unclick"] + opposed == split.candidates:
        return "positives"
    if not counts["unclick"] + others or (max(counted) == split.candidates and not opposed):
        return "negatives"
    return None
