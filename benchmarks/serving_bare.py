"""A model without its server: what serving is measured against."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2


class BareModel:
    """A SavedModel as the C++ runtime runs it, without a server.

    Args:
        version: its folder.
    """

    def __init__(self, version: Path):
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=os.cpu_count() or 1
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            tags = [tf.saved_model.SERVING]
            load = tf.compat.v1.saved_model.loader.load
            self._signatures = load(self._session, tags, str(version)).signature_def

    def call(self, signature: str, batch: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """Returns a call of a signature on one batch; it gives the outputs by name."""
        definition = self._signatures[signature]
        inputs, outputs = sorted(definition.inputs), sorted(definition.outputs)
        options = config_pb2.CallableOptions(
            feed=[definition.inputs[name].name for name in inputs],
            fetch=[definition.outputs[name].name for name in outputs],
        )
        # The calling thread runs all of it: several callers get more done so than by sharing.
        options.run_options.inter_op_thread_pool = -1
        run_graph = self._session._make_callable_from_options(options)
        arrays = [batch[name] for name in inputs]
        return lambda: dict(zip(outputs, run_graph(*arrays), strict=True))
