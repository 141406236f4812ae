"""Loads a SavedModel bit by bit, so that callers of other versions hardly wait meanwhile.

TensorFlow's own loader imports the whole graph in one call that holds Python's lock: for as long,
no request is read and no answer is written. Most of that time is spent on the calls of functions,
one a signature, whose shapes are inferred through the whole function. They are imported one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

_MAIN_OP, _INIT_SIGNATURE = "saved_model_main_op", "__saved_model_init_op"
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


def load(session: tf.compat.v1.Session, path: Path) -> Any:
    """Loads the graph to serve, its variables and its tables into an empty session.

    Args:
        session: of an empty graph.
        path: folder of a SavedModel.

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
        for part in parts(meta_graph.graph_def):
            _add(session.graph, part)
        meta_graph.ClearField("graph_def")
        assets = {
            asset.tensor_info.name: str(path / "assets" / asset.filename)
            for asset in meta_graph.asset_file_def
        }
        saver = meta_graph.saver_def
        if saver.restore_op_name:
            variables = str(path / "variables" / "variables")
            session.run(saver.restore_op_name, {saver.filename_tensor_name: variables})
        session.run(meta_graph.signature_def[_INIT_SIGNATURE].outputs[_INIT_SIGNATURE].name, assets)
    return meta_graph


def _read(path: Path) -> Any:
    """Returns the graph to serve; None where it is not as TensorFlow 2 writes it."""
    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for meta_graph in model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {tf.saved_model.SERVING}:
            graph_def = meta_graph.graph_def
            # Of older models: collections, gradients, and nodes that must stay with others.
            old = set(meta_graph.collection_def) - {_MAIN_OP} or graph_def.library.gradient
            old = old or any("_class" in node.attr for node in graph_def.node)
            if _INIT_SIGNATURE in meta_graph.signature_def and not old:
                return meta_graph
    return None


def parts(graph_def: Any) -> Iterator[Any]:
    """Cuts a graph: each function, then its nodes, each after those it reads, each call alone.

    Args:
        graph_def: a graph without loops, as TensorFlow 2 writes them.
    """
    for function in graph_def.library.function:
        yield tf.compat.v1.GraphDef(versions=graph_def.versions, library={"function": [function]})
    part = tf.compat.v1.GraphDef(versions=graph_def.versions)
    for node in _ordered(graph_def.node):
        if node.op in _CALLS:
            yield part
            part = tf.compat.v1.GraphDef(versions=graph_def.versions)
        part.node.append(node)
    yield part


def _ordered(nodes: Any) -> list[Any]:
    """Sorts nodes so that each comes after those it reads."""
    by_name = {node.name: node for node in nodes}
    found: dict[str, Any] = {}

    def visit(node: Any) -> None:
        if node.name not in found:
            for name in map(_node_name, node.input):
                visit(by_name[name])
            found[node.name] = node

    for node in nodes:
        visit(node)
    return list(found.values())


def _node_name(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]


def _add(graph: tf.Graph, part: Any) -> None:
    """Adds nodes whose inputs are among them, or in the graph already."""
    new = {node.name for node in part.node}
    given: dict[str, Any] = {}
    for tensor in (name for node in part.node for name in node.input):
        if _node_name(tensor) in new:
            continue
        name = _node_name(tensor)
        if tensor.startswith("^"):
            given[tensor] = graph.get_operation_by_name(name)
        else:
            full = tensor if ":" in tensor else f"{tensor}:0"
            given[full] = graph.get_tensor_by_name(full)
    tf.graph_util.import_graph_def(part, input_map=given, name="")
