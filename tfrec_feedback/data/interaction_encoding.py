"""Encoded requests from indices of users and items, without looking anything up."""

from __future__ import annotations

import tensorflow as tf

from tfrec_feedback.data.interaction_table import InteractionTable, ItemLists
from tfrec_feedback.data.interactions import HISTORY, ITEM, USER
from tfrec_feedback.schema import FIRST_ROW, Feature, Schema, SchemaError, Vocabulary

Tensors = dict[str, tf.Tensor]


class RaggedLists:
    """`ItemLists` as tensors.

    Args:
        lists: items by user.
    """

    def __init__(self, lists: ItemLists):
        self._offsets = tf.constant(lists.offsets, tf.int64)
        self._items = tf.constant(lists.items, tf.int32)
        self._clean = tf.constant(lists.clean)

    def items(self, users: tf.Tensor) -> tf.RaggedTensor:
        """Returns the lists of some users, int32 `[R, None]`.

        Args:
            users: int32 `[R]`.
        """
        return self._take(self._items, users)

    def clean(self, users: tf.Tensor) -> tf.RaggedTensor:
        """Returns which entries of `items(users)` are not known to be false, bool `[R, None]`."""
        return self._take(self._clean, users)

    def _take(self, values: tf.Tensor, users: tf.Tensor) -> tf.RaggedTensor:
        starts, stops = tf.gather(self._offsets, users), tf.gather(self._offsets, users + 1)
        positions = tf.ragged.range(starts, stops)
        return positions.with_flat_values(tf.gather(values, positions.flat_values))


class InteractionEncoder:
    """Makes the tensors that `FeatureEncoder` would make of the same requests.

    An index is the line number of an id in its vocabulary, and so its row is found by adding where
    the table begins.

    Args:
        schema: of the prepared folder, or a part of it (`Schema.without`): it decides where tables
            begin, whether there is a context, and whether there is a history.
        table: the interactions; their train items are the histories.

    Raises:
        SchemaError: when the schema asks for anything else than interactions have.
    """

    def __init__(self, schema: Schema, table: InteractionTable):
        offsets = schema.table_offsets()
        self.schema = schema
        _check_features(schema.context, USER, table.num_users)
        _check_features(schema.candidate, ITEM, table.num_items)
        self._has_user = bool(schema.context)
        self._user_row = FIRST_ROW + (offsets[schema.context[0].table] if self._has_user else 0)
        self._item_row = FIRST_ROW + offsets[schema.candidate[0].table]
        self._num_items = table.num_items
        self._lists = RaggedLists(table.positives)
        self._longest = int(table.positives.lengths.max(initial=0))
        for sequence in schema.histories:
            if sequence.name != HISTORY or sequence.num_sessions:
                raise SchemaError(
                    f"Interactions have one history, {HISTORY!r} of {ITEM!r} without sessions; the "
                    f"schema has {sequence}. Leave it out with `Schema.without`."
                )

    def item_rows(self) -> tf.Tensor:
        """Returns the embedding rows of all items, int32 `[I]`."""
        return tf.range(self._num_items, dtype=tf.int32) + self._item_row

    def requests(self, users: tf.Tensor, items: tf.Tensor, history: bool) -> Tensors:
        """Returns encoded requests.

        Args:
            users: int32 `[R]`.
            items: the candidates: int32 `[R, N]`, -1 where padded.
            history: whether to add the user's train items, all of them.

        Returns:
            `context_rows`, `context_weights` `[R, 1]` (`[R, 0]` without context), `candidate_rows`,
            `candidate_weights` `[R, N, 1]`, `num_candidates` `[R]`; with the history also
            `click_rows`, `click_weights` `[R, T, 1]` and `click_length` `[R]`, T the longest of the
            batch. Rows and lengths int32, weights float32.

        Raises:
            SchemaError: for a history that the schema does not have.
        """
        context = users[:, tf.newaxis] + self._user_row
        context = context if self._has_user else context[:, :0]
        valid = items >= 0
        encoded = {
            "context_rows": context,
            "context_weights": tf.ones_like(context, tf.float32),
            "candidate_rows": tf.where(valid, items + self._item_row, 0)[..., tf.newaxis],
            "candidate_weights": tf.cast(valid, tf.float32)[..., tf.newaxis],
            "num_candidates": tf.math.count_nonzero(valid, axis=1, dtype=tf.int32),
        }
        return encoded | self._history(users) if history else encoded

    def _history(self, users: tf.Tensor) -> Tensors:
        sequence = self.schema.history(HISTORY)
        items = self._lists.items(users)
        if self._longest > sequence.max_length:
            items = items[:, -sequence.max_length :]
        rows = items + self._item_row
        return {
            f"{HISTORY}_rows": rows.to_tensor()[..., tf.newaxis],
            f"{HISTORY}_weights": tf.ones_like(rows, tf.float32).to_tensor()[..., tf.newaxis],
            sequence.length: tf.cast(rows.row_lengths(), tf.int32),
        }


def _check_features(features: tuple[Feature, ...], name: str, size: int) -> None:
    for feature in features:
        if feature.name != name or feature.max_values > 1:
            raise SchemaError(
                f"Interactions have the single-valued feature {name!r} here; the schema has "
                f"{[f.name for f in features]}. Leave the others out with `Schema.without`."
            )
        if not isinstance(feature.encoding, Vocabulary) or feature.encoding.size != size:
            raise SchemaError(
                f"Feature {name!r} needs the vocabulary of the prepared folder, {size} ids; the "
                f"schema has {feature.encoding.kind} of size {feature.encoding.size}."
            )
