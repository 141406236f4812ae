"""Loads a SavedModel in short steps, so that callers of other versions hardly wait meanwhile.

TensorFlow's own loader imports the whole graph in one call that holds Python's lock: for as long,
no request is read and no answer is written. Nearly all of that time goes into the shapes that calls
of functions give, inferred through the whole function and read by nobody: they are left open here,
and functions are imported one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving.steps import Steps

_MAIN_OP, _INIT_SIGNATURE = "saved_model_main_op", "__saved_model_init_op"
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_OPEN_SHAPES = "_disable_call_shape_inference"


def load(session: tf.compat.v1.Session, path: Path, steps: Steps) -> Any:
    """Loads the graph to serve, its variables and its tables into an empty session.

    Args:
        session: of an empty graph.
        path: folder of a SavedModel.
        steps: pauses between what holds Python's lock.

    Returns:
        The `MetaGraphDef`, without its graph.

    Raises:
        Exception: of many kinds, when the folder is damaged.
    """
    meta_graph = _read(path)
    with session.graph.as_default():
        if meta_graph is None:
            load_whole = tf.compat.v1.saved_model.loader.load
            return load_whole(session, [tf.saved_model.SERVING], str(path))
        import_in_steps(meta_graph.graph_def, steps)
        meta_graph.ClearField("graph_def")
        assets = {
            asset.tensor_info.name: str(path / "assets" / asset.filename)
            for asset in meta_graph.asset_file_def
        }
        saver = meta_graph.saver_def
        # Both wait for a disk, and run on TensorFlow's own threads.
        if saver.restore_op_name:
            variables = str(path / "variables" / "variables")
            feed = {saver.filename_tensor_name: variables}
            session.run(saver.restore_op_name, feed)
        init = meta_graph.signature_def[_INIT_SIGNATURE].outputs[_INIT_SIGNATURE].name
        session.run(init, assets)
    return meta_graph


def _read(path: Path) -> Any:
    """Returns the graph to serve; None where it is not as TensorFlow 2 writes it."""
    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for meta_graph in model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {tf.saved_model.SERVING}:
            # Of older models: collections, and gradients.
            old = set(meta_graph.collection_def) - {_MAIN_OP}
            old = old or meta_graph.graph_def.library.gradient
            if _INIT_SIGNATURE in meta_graph.signature_def and not old:
                return meta_graph
    return None


def import_in_steps(graph_def: Any, steps: Steps = Steps()) -> None:
    """Imports a graph into the current one: each function alone, then all nodes.

    Args:
        graph_def: a graph without gradients of functions; its nodes are changed.
        steps: pauses between two of them.
    """
    for function in graph_def.library.function:
        part = tf.compat.v1.GraphDef(versions=graph_def.versions, library={"function": [function]})
        tf.graph_util.import_graph_def(part, name="")
        steps.pause()
    graph_def.ClearField("library")
    for node in graph_def.node:
        if node.op in _CALLS:
            node.attr[_OPEN_SHAPES].b = True
    tf.graph_util.import_graph_def(graph_def, name="")
