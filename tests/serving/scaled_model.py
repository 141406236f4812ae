"""A model of a few operations, made in versions that are told apart by their scores.

score[n] = scale * item_id[n], by `rank` (the default) and, counting slowly, by `slow_rank`
regress = scale * x, classify = [["low", "high"]] with scores [[-x, x]], of Examples with x
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving import wire
from serving.server_wire import CLASSIFY_METHOD, REGRESS_METHOD
from serving.tensors import to_proto

_RANK = [
    tf.TensorSpec([None], tf.int64, "rounds"),
    tf.TensorSpec([None, None], tf.int64, "item_id"),
    tf.TensorSpec([None, None], tf.float32, "price"),
    tf.TensorSpec([None], tf.int64, "num_candidates"),
]


def _ranker(scale: int, slow: bool) -> Any:
    def rank(rounds, item_id, price, num_candidates):
        real = tf.sequence_mask(num_candidates, tf.shape(item_id)[1], tf.float32)
        score = scale * tf.cast(item_id, tf.float32) * real + 0 * price
        if slow:
            wanted = tf.reduce_max(rounds)
            done = tf.while_loop(lambda i: i < wanted, lambda i: (i + 1,), [tf.zeros([], tf.int64)])
            score += 0 * tf.cast(done[0], tf.float32)
        return {"score": score}

    return tf.function(rank).get_concrete_function(*_RANK)


def _parsed(examples: tf.Tensor) -> tf.Tensor:
    return tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]


def export_scaled_model(path: Path, scale: int) -> Path:
    """Writes the SavedModel to `path`."""
    module = tf.Module()
    examples = tf.TensorSpec([None], tf.string, "inputs")

    def classes(x: tf.Tensor) -> tf.Tensor:
        return tf.tile([["low", "high"]], [tf.shape(x)[0], 1])

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        x = _parsed(inputs)
        return {"scores": tf.stack([-x, x], 1), "classes": classes(x)}

    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": scale * _parsed(inputs)}

    module.rank = _ranker(scale, slow=False)
    module.slow_rank = _ranker(scale, slow=True)
    module.classify = tf.function(classify).get_concrete_function(examples)
    module.regress = tf.function(regress).get_concrete_function(examples)
    signatures = {name: getattr(module, name) for name in ("slow_rank", "classify", "regress")}
    signatures["serving_default"] = module.rank
    tf.saved_model.save(module, str(path), signatures)
    # `tf.saved_model.save` calls every signature a predicting one.
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for definitions in (graph.signature_def for graph in model.meta_graphs):
        definitions["classify"].method_name = CLASSIFY_METHOD
        definitions["regress"].method_name = REGRESS_METHOD
    file.write_bytes(model.SerializeToString())
    return path


def publish(template: Path, base: Path, version: int) -> Path:
    """Publishes a copy as the exporter does: complete before it has its name."""
    base.mkdir(parents=True, exist_ok=True)
    shutil.copytree(template, base / f".tmp-{version}")
    return (base / f".tmp-{version}").rename(base / str(version))


def publish_corrupt(base: Path, version: int) -> Path:
    """Publishes a version that cannot be loaded."""
    (base / f".tmp-{version}").mkdir(parents=True)
    (base / f".tmp-{version}" / "saved_model.pb").write_bytes(b"\x08\x01 cut short")
    return (base / f".tmp-{version}").rename(base / str(version))


def rank_request(
    items: list[int] | np.ndarray,
    signature: str = "",
    rounds: int = 0,
    model: str = "scaled",
    **spec: Any,
) -> Any:
    """Returns a `PredictRequest` for one user's items."""
    request = wire.PredictRequest(model_spec={"name": model, "signature_name": signature, **spec})
    ids = np.asarray(items, np.int64)[None]
    inputs = {
        "rounds": np.array([rounds]),
        "item_id": ids,
        "price": np.zeros(ids.shape, np.float32),
        "num_candidates": np.array([ids.shape[1]]),
    }
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_proto(array))
    return request


def example(x: float) -> bytes:
    """Returns a serialised Example for `classify` and `regress`."""
    feature = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=[x]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
