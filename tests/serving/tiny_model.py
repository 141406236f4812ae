"""A served model whose scores can be worked out by hand, and requests for it.

    ctr[n]     = hour + item_id[n] / 2 + 10 * (sum of the clicked item_ids)
    dislike[n] = (number of the candidate's tags that equal the user's city) + price[n]

Padded candidates score 0. `rank_examples` knows neither histories nor tags: ctr is hour +
item_id / 2, dislike is the price.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec_feedback.schema import (
    Buckets,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    Schema,
)

SCHEMA = Schema(
    context=(Feature("hour", Identity(24)), Feature("city", Hashing(10))),
    candidate=(
        Feature("item_id", Identity(100)),
        Feature("tag", Hashing(10), max_values=3),
        Feature("price", Buckets((1.0, 2.0))),
    ),
    histories=(FeedbackSequence("click", ("item_id", "tag"), max_length=4),),
)
REQUEST = {
    "context": {"hour": 20, "city": "graz"},
    "histories": {"click": {"item_id": [1, 2], "tag": [["a"], []]}},
    "candidates": {
        "item_id": [10, 12, 3],
        "tag": [["graz", "a"], [], ["graz", "graz", "b"]],
        "price": [0.5, 0.0, 0.25],
    },
}
# hour 20, clicks 1 + 2: 20 + 10 * 3 = 50, plus half the item_id.
CTR = [55.0, 56.0, 51.5]
# 1 tag + 0.5; no tag + 0; 2 tags + 0.25.
DISLIKE = [1.5, 0.0, 2.25]


def signature_specs(rows: bool = False) -> dict[str, tf.TensorSpec]:
    specs = SCHEMA.row_inputs() if rows else SCHEMA.inputs()
    return {
        spec.name: tf.TensorSpec(
            [axis if isinstance(axis, int) else None for axis in spec.axes],
            tf.as_dtype(spec.dtype),
            spec.name,
        )
        for spec in specs
    }


def _scores(x: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    clicked = tf.sequence_mask(x["click_length"], tf.shape(x["click_item_id"])[1], tf.int64)
    clicks = tf.reduce_sum(x["click_item_id"] * clicked, axis=1)
    user = tf.cast(x["hour"] + 10 * clicks, tf.float32)[:, None]
    real = tf.sequence_mask(x["num_candidates"], tf.shape(x["item_id"])[1], tf.float32)
    tagged = tf.sequence_mask(x["tag_count"], tf.shape(x["tag"])[2], tf.float32)
    in_city = tf.cast(x["tag"] == x["city"][:, None, None], tf.float32) * tagged
    return {
        "ctr": (user + tf.cast(x["item_id"], tf.float32) / 2) * real,
        "dislike": (tf.reduce_sum(in_city, axis=2) + x["price"]) * real,
    }


def _row_scores(x: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    wide = {
        name: tensor[:, None] if name in ("item_id", "tag", "tag_count", "price") else tensor
        for name, tensor in x.items()
    }
    wide["num_candidates"] = tf.ones_like(x["hour"])
    return {task: scores[:, 0] for task, scores in _scores(wide).items()}


def _example_scores(examples: tf.Tensor) -> dict[str, tf.Tensor]:
    parsed = tf.io.parse_example(
        examples,
        {
            "hour": tf.io.FixedLenFeature([], tf.int64),
            "item_id": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
            "price": tf.io.RaggedFeature(tf.float32, row_splits_dtype=tf.int64),
        },
    )
    hour = tf.cast(parsed["hour"], tf.float32)[:, None]
    items = parsed["item_id"].to_tensor()
    return {
        "ctr": hour + tf.cast(items, tf.float32) / 2,
        "dislike": parsed["price"].to_tensor(),
    }


def _count(iterations: tf.Tensor) -> dict[str, tf.Tensor]:
    """Counts to `iterations` one by one: a call that takes as long as a test wants."""
    wanted = tf.reduce_max(iterations)
    counted = tf.while_loop(lambda i: i < wanted, lambda i: (i + 1,), [tf.zeros([], tf.int64)])[0]
    return {"counted": tf.repeat(counted, tf.shape(iterations)[0])}


def export_tiny_model(path: Path) -> None:
    """Writes the SavedModel to `path`."""
    module = tf.Module()
    specs, rows = signature_specs(), signature_specs(rows=True)
    module.rank = tf.function(lambda **x: _scores(x)).get_concrete_function(**specs)
    module.predict_rows = tf.function(lambda **x: _row_scores(x)).get_concrete_function(**rows)
    module.rank_examples = tf.function(_example_scores).get_concrete_function(
        tf.TensorSpec([None], tf.string, "examples")
    )
    module.slow = tf.function(_count).get_concrete_function(
        tf.TensorSpec([None], tf.int64, "iterations")
    )
    signatures = {
        name: getattr(module, name) for name in ("rank", "predict_rows", "rank_examples", "slow")
    }
    signatures["serving_default"] = module.rank
    tf.saved_model.save(module, str(path), signatures)


def record(hour: int, items: list[int], prices: list[float]) -> bytes:
    """Returns a request record for `rank_examples`."""

    def integers(values: list[int]) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = {
        "hour": integers([hour]),
        "item_id": integers(items),
        "price": tf.train.Feature(float_list=tf.train.FloatList(value=prices)),
        "num_candidates": integers([len(items)]),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def numpy_scores(request: dict) -> dict[str, np.ndarray]:
    """The formulas above, in plain loops."""
    context, candidates = request["context"], request["candidates"]
    clicks = request["histories"].get("click", {"item_id": []})["item_id"][-4:]
    user = context["hour"] + 10 * sum(clicks)
    in_city = [sum(t == context["city"] for t in tags[:3]) for tags in candidates["tag"]]
    return {
        "ctr": np.array([user + item / 2 for item in candidates["item_id"]], np.float32),
        "dislike": np.array(
            [n + p for n, p in zip(in_city, candidates["price"], strict=True)], np.float32
        ),
    }
