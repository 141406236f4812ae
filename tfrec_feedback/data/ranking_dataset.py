"""Users in batches, with what is needed to rank the whole catalogue for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.batches import numbered_batches
from tfrec_feedback.data.interaction_encoding import InteractionEncoder, RaggedLists
from tfrec_feedback.data.interaction_table import InteractionTable
from tfrec_feedback.schema import Schema

_VALIDATION = ("validation", "validation_clean")


def ranking_users(
    table: InteractionTable,
    split: str,
    batch_size: int,
    encoder_schema: Schema,
    *,
    exclude: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Batches the users that a split has items of, to rank the whole catalogue for them.

    Args:
        table: the interactions.
        split: whose items are relevant.
        batch_size: R, users a batch; in the order of their indices.
        encoder_schema: schema of the model's encoder; its history, if any, is the train items.
        exclude: splits whose items are not ranked. Default: `train`, and for the test splits the
            validation splits as well.

    Returns:
        Dataset of `(encoded, known)`. `encoded`: requests without candidates (`[R, 0, 1]`), to be
        scored against `item_rows`. `known`: `user` int32 `[R]`, `excluded` and `relevant` int32
        ragged `[R, None]`, sorted items. An excluded item is never relevant: it cannot be ranked,
        so counting it would only set a bound on recall. Users left without relevant items are left
        out.

    Raises:
        ValueError: for an unknown split, and a schema that does not fit.

    Example:
        >>> users = ranking_users(table, "test", 256, model.schema)  # doctest: +SKIP
        >>> encoded, known = next(iter(users))  # doctest: +SKIP
        >>> scores = model.catalogue_logits(encoded, rows)  # doctest: +SKIP
    """
    if exclude is None:
        also = _VALIDATION if split.startswith("test") else ()
        exclude = ["train", *(name for name in also if name in table.splits)]
    excluded = table.lists(*exclude)
    relevant = table.lists(split, without=excluded)
    everyone = tf.constant(np.flatnonzero(relevant.lengths), tf.int32)
    out, found = RaggedLists(excluded), RaggedLists(relevant)
    encoder = InteractionEncoder(encoder_schema, table)

    def make(start: tf.Tensor) -> Any:
        users = everyone[start : start + batch_size]
        nothing = tf.zeros([tf.size(users), 0], tf.int32)
        known = {"user": users, "excluded": out.items(users), "relevant": found.items(users)}
        return encoder.requests(users, nothing, history=bool(encoder_schema.histories)), known

    return numbered_batches(make, len(everyone), batch_size)


def item_rows(table: InteractionTable, encoder_schema: Schema) -> tf.Tensor:
    """Returns the embedding rows of all items by index, int32 `[I]`: the catalogue to rank."""
    return InteractionEncoder(encoder_schema, table).item_rows()
