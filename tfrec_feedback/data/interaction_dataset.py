"""Interactions as batches of encoded requests: for training, and for ranking all items.

    table = load_interactions(load_manifest("data/ml-100k"))
    batches = pair_dataset(table, model.schema, 1024, seed=0, epoch=epoch)

Batches are `(encoded, labels)`. `encoded` is what `FeatureEncoder` gives for such requests; a model
takes it as it is. `labels` holds `{task: float32 [R, N]}` for every task of the schema, and beside
them what models do not read and analyses do:

- `false_positive`: float32 `[R, N]`, 1 where a positive is known to be false;
- `item`: int32 `[R, N]`, index of the candidate, -1 where padded;
- `user`: int32 `[R]`, index of the user.

Order and negatives are functions of seed, epoch and position in the epoch: a batch is the same
whatever was read before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.batches import epoch_order, numbered_batches
from tfrec_feedback.data.interaction_encoding import InteractionEncoder, RaggedLists, Tensors
from tfrec_feedback.data.interaction_table import InteractionTable, Pairs, load_interactions
from tfrec_feedback.data.manifest import FALSE_POSITIVE
from tfrec_feedback.data.negatives import NegativeSampler
from tfrec_feedback.data.parsing import task_labels
from tfrec_feedback.data.ranking_dataset import item_rows, ranking_users
from tfrec_feedback.schema import Schema

__all__ = [
    "InteractionEncoder",
    "InteractionTable",
    "Pairs",
    "item_rows",
    "load_interactions",
    "pair_dataset",
    "ranking_users",
    "user_dataset",
]


def pair_dataset(  # noqa: PLR0913 - one keyword an option
    table: InteractionTable,
    encoder_schema: Schema,
    batch_size: int,
    *,
    num_negatives: int = 1,
    seed: int = 0,
    epoch: int = 0,
    skip_batches: int = 0,
    history: bool = False,
    split: str = "train",
    satisfaction: bool = False,
) -> tf.data.Dataset:
    """Pairs every interaction with negatives, drawn anew every epoch; in shuffled order.

    Args:
        table: the interactions.
        encoder_schema: schema of the model's encoder.
        batch_size: R, interactions a batch; the last batch has the rest.
        num_negatives: K, drawn uniformly from the items that the user has no train interaction
            with; an item may be drawn twice.
        seed: of the order and the negatives; not negative.
        epoch: number of the epoch.
        skip_batches: leaves out the first batches, without making them: resumes an epoch.
        history: adds the user's train items, the positive among them, as an autoencoder needs.
        split: whose interactions are the positives; negatives never depend on it.
        satisfaction: calls known false positives dislikes, for models that are told so.

    Returns:
        Dataset of `(encoded, labels)`, see the module. N = 1 + K; the positive is candidate 0.

    Raises:
        ValueError: for sizes below 1, an unknown split, and a schema that does not fit.

    Example:
        >>> pairs = Pairs(np.int32([0, 1]), np.int32([2, 0]), np.array([True, False]))
        >>> table = InteractionTable({"train": pairs}, num_users=2, num_items=3)
        >>> batches = pair_dataset(table, schema, 2, num_negatives=4)  # doctest: +SKIP
    """
    _check_negatives(num_negatives)
    encoder = _encoder(encoder_schema, table, history)
    sampler = NegativeSampler(table.positives, table.num_items, seed, epoch)
    pairs = table.split(split)
    order = epoch_order(len(pairs), seed, epoch)
    columns = [tf.constant(c[order]) for c in (pairs.users, pairs.items, pairs.clean)]
    # A counter gives two numbers: an interaction has its own counters, whatever the batch size.
    counters = -(-num_negatives // 2)

    def make(start: tf.Tensor) -> Any:
        users, positives, clean = (column[start : start + batch_size] for column in columns)
        size = tf.size(users)
        uniform = sampler.uniform(start * counters, size * (2 * counters))
        uniform = tf.reshape(uniform, [size, 2 * counters])[:, :num_negatives]
        negatives = sampler.pick(tf.repeat(users, num_negatives), tf.reshape(uniform, [-1]))
        negatives = tf.reshape(negatives, [size, num_negatives])
        items = tf.concat([positives[:, tf.newaxis], negatives], axis=1)
        click = tf.zeros_like(items, tf.bool) | (tf.range(1 + num_negatives) == 0)
        false = click & ~clean[:, tf.newaxis]
        labels = _labels(encoder.schema, users, items, click, false, satisfaction)
        return encoder.requests(users, items, history), labels

    return numbered_batches(make, len(pairs), batch_size, skip_batches)


def user_dataset(  # noqa: PLR0913 - one keyword an option
    table: InteractionTable,
    encoder_schema: Schema,
    batch_size: int,
    *,
    num_negatives: int = 5,
    seed: int = 0,
    epoch: int = 0,
    skip_batches: int = 0,
    satisfaction: bool = False,
) -> tf.data.Dataset:
    """Makes a request of every user with train interactions: his positives, and negatives.

    For CDAE: the candidates are all the user's positives and, after them, `num_negatives` sampled
    items a positive; his history is all his positives.

    Args:
        table: the interactions.
        encoder_schema: schema of the model's encoder, with its history.
        batch_size: R, users a batch; the last batch has the rest.
        num_negatives: drawn for every positive, as in `pair_dataset`.
        seed: of the order and the negatives; not negative.
        epoch: number of the epoch.
        skip_batches: leaves out the first batches, without making them: resumes an epoch.
        satisfaction: calls known false positives dislikes, for models that are told so.

    Returns:
        Dataset of `(encoded, labels)`, see the module; N is the longest of the batch,
        `encoded["num_candidates"]` says how many are not padding.

    Raises:
        ValueError: for sizes below 1, and a schema that does not fit or has no history.
    """
    _check_negatives(num_negatives)
    encoder = _encoder(encoder_schema, table, history=True)
    sampler = NegativeSampler(table.positives, table.num_items, seed, epoch)
    lists = RaggedLists(table.positives)
    everyone = np.flatnonzero(table.activity).astype(np.int32)
    everyone = everyone[epoch_order(len(everyone), seed, epoch)]
    drawn = table.activity[everyone] * num_negatives
    # Where the counters of each user begin; a counter gives two numbers.
    begins = tf.constant(np.concatenate([[0], np.cumsum(-(-drawn // 2))]), tf.int64)
    order, counts = tf.constant(everyone), tf.constant(drawn, tf.int64)

    def make(start: tf.Tensor) -> Any:
        users, sizes = order[start : start + batch_size], counts[start : start + batch_size]
        edges = begins[start : start + batch_size + 1]
        uniform = sampler.uniform(edges[0], 2 * (edges[-1] - edges[0]))
        at = 2 * (edges[:-1] - edges[0])
        at = tf.ragged.range(at, at + sizes)
        picked = sampler.pick(tf.repeat(users, sizes), tf.gather(uniform, at.flat_values))
        positives, negatives = lists.items(users), at.with_flat_values(picked)
        items = _join(positives, negatives).to_tensor(-1)
        click = tf.sequence_mask(positives.row_lengths(), tf.shape(items)[1])
        drawn_false = tf.zeros_like(negatives, tf.bool)
        false = _join(~lists.clean(users), drawn_false).to_tensor()
        labels = _labels(encoder.schema, users, items, click, false, satisfaction)
        return encoder.requests(users, items, history=True), labels

    return numbered_batches(make, len(everyone), batch_size, skip_batches)


def _join(first: tf.RaggedTensor, second: tf.RaggedTensor) -> tf.RaggedTensor:
    """Joins the rows of two ragged tensors; `tf.concat` takes longer, and logs errors of oneDNN."""
    sizes = first.row_lengths() + second.row_lengths()
    starts = tf.cumsum(sizes, exclusive=True)
    middles = starts + first.row_lengths()
    parts = (tf.ragged.range(starts, middles), tf.ragged.range(middles, starts + sizes))
    places = [tf.cast(part.flat_values, tf.int32) for part in parts]
    values = tf.dynamic_stitch(places, [first.flat_values, second.flat_values])
    return tf.RaggedTensor.from_row_lengths(values, sizes, validate=False)


def _labels(
    schema: Schema,
    users: tf.Tensor,
    items: tf.Tensor,
    click: tf.Tensor,
    false: tf.Tensor,
    satisfaction: bool,
) -> Tensors:
    nothing = tf.zeros_like(click)
    flags = {**dict.fromkeys(schema.feedbacks, nothing), "click": click, FALSE_POSITIVE: false}
    if satisfaction:
        flags["dislike"] = false
    analysis = {FALSE_POSITIVE: tf.cast(false, tf.float32), "item": items, "user": users}
    return {**task_labels(schema, flags), **analysis}


def _encoder(schema: Schema, table: InteractionTable, history: bool) -> InteractionEncoder:
    if history and not schema.histories:
        raise ValueError(
            "The schema has no history to fill. Take the prepared folder's, or leave out the "
            "histories of the batches."
        )
    return InteractionEncoder(schema, table)


def _check_negatives(num_negatives: int) -> None:
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}.")
