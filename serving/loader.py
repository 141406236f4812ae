"""Loads an exported model the way TF Serving does: a session of the C++ runtime, no Keras."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving import wire
from serving.signatures import Signature


class ModelError(RuntimeError):
    """A model that cannot be served; the message says where it was looked for."""


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
    if not base.is_dir():
        raise ModelError(f"No folder {base}: expected one that holds versions 1, 2, ...")
    versions = {
        int(entry.name): entry
        for entry in base.iterdir()
        if entry.is_dir() and entry.name.isascii() and entry.name.isdecimal()
    }
    if not versions:
        found = sorted(entry.name for entry in base.iterdir())[:10]
        raise ModelError(
            f"No version in {base}: expected folders named by integers, found {found}. Publish a "
            "model there, or pass the folder above its versions."
        )
    wanted = max(versions) if version is None else version
    if wanted not in versions:
        raise ModelError(f"No version {wanted} in {base}; there are {sorted(versions)}.")
    if not (versions[wanted] / "saved_model.pb").is_file():
        raise ModelError(
            f"{versions[wanted]} holds no saved_model.pb: the version is incomplete. Remove or "
            "publish it again, or name another one with --version."
        )
    return versions[wanted]


class LoadedModel:
    """One version of a model, ready to run. Safe to use from several threads.

    Args:
        name: name it is served under.
        path: its folder, `<base>/<version>`.

    Attributes:
        name: as given.
        version: the integer that names the folder.
        signature_defs: the signatures as `wire.SignatureDef`s.
        signatures: the same, read.

    Raises:
        ModelError: when TensorFlow cannot load the folder.
    """

    def __init__(self, name: str, path: Path):
        self.name = name
        self.version = int(path.name)
        # Requests run side by side, each on one core: a quarter less CPU time a request than when
        # every operation spreads over all cores.
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=1, inter_op_parallelism_threads=os.cpu_count() or 1
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with self._session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(
                    self._session, [tf.saved_model.SERVING], str(path)
                )
        except (tf.errors.OpError, OSError, ValueError, RuntimeError) as error:
            self._session.close()
            raise ModelError(f"{path} cannot be loaded: {error}") from error
        self.signature_defs: dict[str, Any] = {
            key: wire.SignatureDef.FromString(definition.SerializeToString())
            for key, definition in meta_graph.signature_def.items()
            if not key.startswith("__")  # `__saved_model_init_op` is the loader's own
        }
        self.signatures = {
            key: Signature.from_proto(definition) for key, definition in self.signature_defs.items()
        }
        self._callables = {key: self._callable(d) for key, d in self.signature_defs.items()}

    def _callable(self, definition: Any) -> Any:
        feeds = [definition.inputs[key].name for key in sorted(definition.inputs)]
        fetches = [definition.outputs[key].name for key in sorted(definition.outputs)]
        return self._session.make_callable(fetches, feeds)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: its name.
            inputs: an array for every input of it.

        Returns:
            Every output, by name.

        Raises:
            tf.errors.OpError: when the graph refuses the values.
        """
        values = self._callables[signature](*(inputs[name] for name in sorted(inputs)))
        return dict(zip(sorted(self.signatures[signature].outputs), values, strict=True))

    def close(self) -> None:
        """Frees the model; runs that are under way are cancelled."""
        self._session.close()
