"""Loads an exported model the way TF Serving does: a session of the C++ runtime, no Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

from serving import wire
from serving.chunks import ChunkPlan
from serving.cores import usable_cores
from serving.graph_import import load
from serving.model_config import scan
from serving.signatures import Signature
from serving.steps import Steps
from tfrec_feedback.schema import Schema, SchemaError

_INTERNAL, _NOT_FOUND = 13, 5
_LONGEST_RUN = 3600.0
# A second pass of TensorFlow's optimiser takes two fifths of the time that a signature needs until
# it can run, and finds nothing in these graphs.
_REWRITING = rewriter_config_pb2.RewriterConfig(
    meta_optimizer_iterations=rewriter_config_pb2.RewriterConfig.ONE
)


class ModelError(RuntimeError):
    """A model that cannot be served; the message says where it was looked for.

    Attributes:
        code: number of the status code that the version's status shows.
    """

    def __init__(self, message: str, code: int = _INTERNAL):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Threads:
    """Threads of TensorFlow's runtime. The first session of a process decides for all.

    Requests run side by side, each on one core: a quarter less CPU time a request than when every
    operation spreads over all cores.

    Attributes:
        intra_op: for the parts of one operation.
        inter_op: for operations beside each other; 0: as many as there are cores.
    """

    intra_op: int = 1
    inter_op: int = 0


def find_version(base: str | Path, version: int | None = None) -> Path:
    """Returns the folder of a version.

    Args:
        base: folder of the versions: `base/1`, `base/2`, ... Names that are no integers, such as
            `.tmp-3`, are ignored.
        version: the wanted one; the highest when left out.

    Raises:
        ModelError: when there is no such version, or it holds no SavedModel.
    """
    base = Path(base)
    versions = scan(base)
    if versions is None:
        raise ModelError(f"No folder {base}: expected one that holds versions 1, 2, ...")
    if not versions:
        found = sorted(entry.name for entry in base.iterdir())[:10]
        raise ModelError(
            f"No version in {base}: expected folders named by integers, found {found}. Publish a "
            "model there, or pass the folder above its versions."
        )
    wanted = max(versions) if version is None else version
    if wanted not in versions:
        raise ModelError(f"No version {wanted} in {base}; there are {sorted(versions)}.")
    check_complete(versions[wanted])
    return versions[wanted]


def check_complete(path: Path) -> None:
    """Raises `ModelError` when a version's folder holds no SavedModel."""
    if not (path / "saved_model.pb").is_file():
        raise ModelError(
            f"{path} holds no saved_model.pb: the version is incomplete. Remove or "
            "publish it again, or name another one with --version.",
            _NOT_FOUND,
        )


class LoadedModel:
    """One version of a model, ready to run. Safe to use from several threads.

    Args:
        name: name it is served under.
        path: its folder, `<base>/<version>`.
        threads: threads of the runtime.
        steps: runs what takes long.

    Attributes:
        name: as given.
        version: the integer that names the folder.
        signature_defs: the signatures as `wire.SignatureDef`s.
        signatures: the same, read.
        path: as given.
        plans: how the requests of each signature that can be cut may be.

    Raises:
        ModelError: when TensorFlow cannot load the folder.
    """

    def __init__(self, name: str, path: Path, threads: Threads = Threads(), steps: Steps = Steps()):
        self.name = name
        self.path = path
        self.version = int(path.name)
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads.intra_op,
            inter_op_parallelism_threads=threads.inter_op or usable_cores(),
            graph_options=config_pb2.GraphOptions(rewrite_options=_REWRITING),
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            meta_graph = load(self._session, path, steps)
            self._read_signatures(meta_graph.signature_def, _schema(path))
            self._prepare(steps)
        # What a damaged file makes TensorFlow raise is not to be foreseen: none may end a server.
        except Exception as error:
            self._session.close()
            code = error.error_code if isinstance(error, tf.errors.OpError) else _INTERNAL
            raise ModelError(f"{path} cannot be loaded: {error}", code) from error

    def _read_signatures(self, definitions: Mapping[str, Any], schema: Schema | None) -> None:
        self.signature_defs: dict[str, Any] = {
            key: wire.SignatureDef.FromString(definition.SerializeToString())
            for key, definition in definitions.items()
            if not key.startswith("__")  # `__saved_model_init_op` is the loader's own
        }
        self.signatures = {
            key: Signature.from_proto(definition) for key, definition in self.signature_defs.items()
        }
        plans = {key: ChunkPlan.of(s, schema) for key, s in self.signatures.items()}
        self.plans = {key: plan for key, plan in plans.items() if plan is not None}

    def _prepare(self, steps: Steps) -> None:
        """Makes the signatures that rank candidates ready to run.

        Others run with a deadline, which callables cannot: each way of running a signature takes
        TensorFlow half a second to prepare.
        """
        self._callables = {
            key: steps.run(partial(self._callable, self.signature_defs[key]))
            for key, plan in self.plans.items()
            if plan.candidates
        }

    def _callable(self, definition: Any) -> Any:
        feeds = [definition.inputs[key].name for key in sorted(definition.inputs)]
        fetches = [definition.outputs[key].name for key in sorted(definition.outputs)]
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        # The calling thread runs all of it: callers beside each other get more done so than by
        # sharing threads.
        options.run_options.inter_op_thread_pool = -1
        return self._session._make_callable_from_options(options)

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], seconds: float | None = None
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: its name.
            inputs: an array for every input of it.
            seconds: time after which the run is stopped; None: never, a fraction of a millisecond
                faster for a signature that ranks candidates.

        Returns:
            Every output, by name.

        Raises:
            tf.errors.OpError: when the graph refuses the values, or takes longer.
        """
        try:
            values = self._values(signature, inputs, seconds)
        except UnicodeDecodeError as error:
            # TensorFlow quotes the bytes it refuses, and cannot make a Python string of them.
            message = error.object.decode("utf-8", "replace")
            raise tf.errors.InvalidArgumentError(None, None, message) from error
        return dict(zip(sorted(self.signatures[signature].outputs), values, strict=True))

    def _values(
        self, signature: str, inputs: Mapping[str, np.ndarray], seconds: float | None
    ) -> list[np.ndarray]:
        unlimited = seconds is None or seconds > _LONGEST_RUN
        values: list[np.ndarray]
        if unlimited and signature in self._callables:
            values = self._callables[signature](*(inputs[name] for name in sorted(inputs)))
        else:
            definition = self.signature_defs[signature]
            # 0 stands for no limit at all.
            limit = 0 if seconds is None or unlimited else max(1, int(seconds * 1000))
            values = self._session.run(
                [definition.outputs[key].name for key in sorted(definition.outputs)],
                {definition.inputs[name].name: array for name, array in inputs.items()},
                options=tf.compat.v1.RunOptions(timeout_in_ms=limit),
            )
        return values

    def close(self) -> None:
        """Frees the model; runs that are under way are cancelled."""
        self._callables.clear()
        self._session.close()


def _schema(path: Path) -> Schema | None:
    """Returns the schema exported with a model: it knows histories from candidates for certain."""
    exported = path / "assets.extra" / "schema.json"
    try:
        return Schema.from_json(exported) if exported.is_file() else None
    except (SchemaError, OSError, ValueError):
        return None
