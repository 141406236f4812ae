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
from tfrec_feedback.data.interaction_dataset import load_interactions, pair_dataset, user_dataset
from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.data.records import REQUEST_ID
from tfrec_feedback.evaluation import predict, ranking_metrics, scoring_function
from tfrec_feedback.full_ranking import rank_catalogue, ranking_means
from tfrec_feedback.models import RECOMMENDERS, FeedbackModel, Recommender

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
    """

    monitors = ("ctr_auc", "ctr_gauc", "dislike_auc")

    def __init__(self, config: Config, manifest: Manifest, model: FeedbackModel, scratch: Path):
        self._config, self._manifest, self._model = config, manifest, model
        self._paths: dict[str, Any] = {"train": None, "validation": None}
        self.skipped_records = 0
        if config.data.skip_corrupt:
            for split in self._paths:
                self._paths[split], stats = check_shards(manifest, split, scratch=scratch)
                listed = sum(shard.records for shard in manifest.split(split).shards)
                self.skipped_records += listed - stats.records
        self.num_batches = num_batches(manifest, "train", config.data.batch_size)
        self._score = scoring_function(model)  # traced once, not every epoch

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
        self._config, self._model = config, model
        self._table = load_interactions(manifest)
        given = config.data.num_negatives
        self._num_negatives = model.num_negatives if given is None else given
        self._dataset = pair_dataset if model.read_history is None else user_dataset
        self.num_batches = len(self.train(0, 0))

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
