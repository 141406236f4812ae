"""The `top_k` signature of recommenders: the best of all items, without candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.layers import FeatureEncoder
from tfrec_feedback.layers.feature_encoding import table_offsets
from tfrec_feedback.losses import calibrated_logits
from tfrec_feedback.models import Recommender
from tfrec_feedback.models.recommender import ITEM
from tfrec_feedback.schema import FIRST_ROW, Hashing, Identity, Schema, Vocabulary

EXCLUDED, NUM_EXCLUDED = f"exclude_{ITEM}", "exclude_length"

Tensors = dict[str, tf.Tensor]


def catalogue(schema: Schema) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns all item ids and their rows in the embedding table, `[I]` each.

    None where the schema does not know them: hashed ids cannot be read back.
    """
    feature = schema.feature(ITEM)
    if isinstance(feature.encoding, Hashing):
        return None
    if isinstance(feature.encoding, Vocabulary):
        ids = np.array(schema.vocabulary(feature.table))
    elif isinstance(feature.encoding, Identity):
        ids = np.arange(feature.encoding.size)
    else:
        return None
    rows = table_offsets(schema)[feature.table] + FIRST_ROW + np.arange(len(ids), dtype=np.int32)
    return ids, rows


class CatalogueRanker(tf.Module):
    """The serving function of a recommender that ranks its whole catalogue.

    `top_k` takes what `rank` takes of users, and items that are not to be named:
    `exclude_item_id` `[R, E]` with `exclude_length` `[R]` (lengths, since a server may pad).
    It gives `item_id` `[R, K]`, best first, and their click scores `ctr` `[R, K]`; where a user
    has fewer items left, `ctr` is 0. The model's own clicks are not left out by themselves: send
    what the user has met.

    Args:
        model: a trained recommender.
        encoder: of the same schema.
        schema: the model's schema.
        k: K; as many items as there are, where they are fewer.
        beta: what the click scores are calibrated by, see `calibrated_logits`; 0 for none.
    """

    def __init__(
        self, model: Recommender, encoder: FeatureEncoder, schema: Schema, k: int, beta: float
    ):
        super().__init__(name="catalogue_ranker")
        known = catalogue(schema)
        if known is None:
            raise ValueError(f"{ITEM!r} is not encoded by a vocabulary: its values are not known.")
        ids, self._rows = known
        self._ids = tf.constant(ids, tf.as_dtype(schema.feature(ITEM).dtype))
        self._k = min(k, len(ids))
        self._encode = lambda features: encoder(features)
        self._logits = lambda encoded, rows: calibrated_logits(
            model.catalogue_logits(encoded, rows), beta
        )
        self._inputs = [spec for spec in schema.inputs() if spec.role != "candidate"]
        dtype = tf.as_dtype(schema.feature(ITEM).dtype)
        specs: dict[str, Any] = {
            spec.name: tf.TensorSpec(
                [axis if isinstance(axis, int) else None for axis in spec.axes],
                tf.as_dtype(spec.dtype),
                spec.name,
            )
            for spec in self._inputs
        }
        specs[EXCLUDED] = tf.TensorSpec([None, None], dtype, EXCLUDED)
        specs[NUM_EXCLUDED] = tf.TensorSpec([None], tf.int64, NUM_EXCLUDED)
        self.top_k = tf.function(self._top_k, input_signature=[specs])

    def _top_k(self, inputs: Tensors) -> Tensors:
        # What is excluded goes the way of candidates, and comes back as rows of the table.
        users = {spec.name: inputs[spec.name] for spec in self._inputs}
        encoded = self._encode(
            {**users, ITEM: inputs[EXCLUDED], "num_candidates": inputs[NUM_EXCLUDED]}
        )
        excluded = encoded["candidate_rows"][..., 0] - self._rows[0]
        logits = self._logits(encoded, tf.constant(self._rows))
        position = tf.where(excluded >= 0)  # Padding and unknown ids lie before the first item.
        cells = tf.stack([position[:, 0], tf.cast(tf.gather_nd(excluded, position), tf.int64)], 1)
        lowest = tf.fill([tf.shape(cells)[0]], logits.dtype.min)
        best, items = tf.math.top_k(tf.tensor_scatter_nd_update(logits, cells, lowest), self._k)
        return {ITEM: tf.gather(self._ids, items), "ctr": tf.sigmoid(best)}
