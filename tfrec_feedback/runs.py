"""The folder of a run: what was trained, on what, with what, and the model itself."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf
import tomli_w

from tfrec_feedback.config import Config
from tfrec_feedback.data.manifest import Manifest, write_atomically
from tfrec_feedback.models import MODELS, FeedbackModel
from tfrec_feedback.schema import Schema

MODEL_FILE = "model.keras"
RUN_FILE = "run.json"
CONFIG_FILE = "config.toml"
_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "numpy")


class RunError(RuntimeError):
    """A run folder cannot be used as asked."""


def model_schema(config: Config, manifest: Manifest) -> Schema:
    """Returns what a run's model reads of prepared data.

    Args:
        config: the run's configuration; features in `data.drop` are left out.
        manifest: prepared data.

    Returns:
        The part of the data's schema that the model looks at, see `FeedbackModel.reads`.
    """
    schema = manifest.schema().without(config.data.drop)
    # A name that is not known is left to `build_model`, which suggests the closest.
    model = MODELS.get(config.model.name, (FeedbackModel,))[0]
    return model.reads(schema)


def open_run(directory: Path, config: Config, manifest: Manifest) -> None:
    """Creates the folder, or checks that it belongs to the same, unfinished run."""
    described = {
        "config": config.model_dump(mode="json"),
        "data_fingerprint": manifest.fingerprint,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "finished": False,
    }
    path = directory / RUN_FILE
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["finished"]:
            raise RunError(f"{directory} holds a finished run. Choose another --output.")
        for key in ("config", "data_fingerprint"):
            if before[key] != described[key]:
                raise RunError(
                    f"{directory} holds an interrupted run with another {key}. Choose another "
                    f"--output, or start it again as it was: {before[key]}."
                )
        return
    directory.mkdir(parents=True, exist_ok=True)
    settings = config.model_dump(mode="json", exclude_none=True)
    (directory / CONFIG_FILE).write_text(tomli_w.dumps(settings), encoding="utf-8")
    model_schema(config, manifest).to_json(directory / "schema.json")
    if (manifest.directory / "vocabularies").is_dir():
        shutil.copytree(
            manifest.directory / "vocabularies", directory / "vocabularies", dirs_exist_ok=True
        )
    write_atomically(path, json.dumps(described, indent=2).encode("utf-8"))


def update_run(directory: Path, **changes: Any) -> None:
    """Changes some entries of a run's description."""
    path = directory / RUN_FILE
    described = json.loads(path.read_text(encoding="utf-8")) | changes
    write_atomically(path, json.dumps(described, indent=2).encode("utf-8"))


def describe_run(run: str | Path) -> dict[str, Any]:
    """Returns the description of a finished run.

    Args:
        run: the run's folder.

    Raises:
        RunError: when there is no finished run.
    """
    directory = Path(run)
    if not (directory / RUN_FILE).is_file():
        raise RunError(f"No run in {directory}: expected the --output of pipelines.train.")
    description = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))
    if not description.get("finished"):
        raise RunError(f"The run in {directory} is not finished; start pipelines.train again.")
    return description


def load_run(run: str | Path) -> tuple[FeedbackModel, dict[str, Any]]:
    """Loads the model of a finished run.

    Args:
        run: the run's folder.

    Returns:
        The model, with its vocabularies read from the folder's files, and the run's description.

    Raises:
        RunError: when there is no finished run.
    """
    directory = Path(run)
    description = describe_run(directory)
    model = tf.keras.models.load_model(directory / MODEL_FILE, compile=False)
    model.schema = Schema.from_json(directory / "schema.json")
    return model, description
