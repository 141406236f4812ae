"""The folder of a run: what was trained, on what, with what, and the model itself."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf
import tomli_w

from tfrec_feedback.config import Config
from tfrec_feedback.data.manifest import MANIFEST_FILE, SCHEMA_FILE, Manifest, write_atomically
from tfrec_feedback.models import MODELS, FeedbackModel
from tfrec_feedback.schema import Schema

MODEL_FILE = "model.keras"
RUN_FILE = "run.json"
CONFIG_FILE = "config.toml"
_OWN = (
    CONFIG_FILE,
    SCHEMA_FILE,
    MODEL_FILE,
    "vocabularies",
    "checkpoints",
    "state.json",
    "best*.weights.h5",
    "interests",
    "denoising.npz",
    "evaluation.json",
)
"""What runs write, remove, or take for their own; logs and the like may lie beside it."""

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


def check_run(directory: Path, config: Config, manifest: Manifest) -> None:
    """Checks that a run may write into a folder; changes nothing.

    Args:
        directory: of the run.
        config: the run's configuration.
        manifest: prepared data.

    Raises:
        RunError: when the folder holds prepared data, a finished run, one with other settings or
            data, or, without a run, files that one would write over.
    """
    if (directory / MANIFEST_FILE).is_file():
        raise RunError(
            f"{directory} holds prepared data, and a run would write over its {SCHEMA_FILE}. "
            "Choose another --output."
        )
    if not (directory / RUN_FILE).is_file():
        if taken := sorted({path.name for name in _OWN for path in directory.glob(name)}):
            raise RunError(
                f"{directory} holds {', '.join(taken)} and no {RUN_FILE}: a run would write over "
                "what is not its own. Choose another --output, or move these away."
            )
        return
    before, described = _read_run(directory), _describe(config, manifest)
    if before.get("finished"):
        raise RunError(f"{directory} holds a finished run. Choose another --output.")
    for key in ("config", "data_fingerprint"):
        if before.get(key) != described[key]:
            raise RunError(
                f"{directory} holds an interrupted run with another {key}. Choose another "
                f"--output, or start it again as it was: {before.get(key)}."
            )


def open_run(directory: Path, config: Config, manifest: Manifest) -> None:
    """Makes the folder of a run, or goes on in that of the same, unfinished one.

    Raises:
        RunError: see `check_run`.
    """
    check_run(directory, config, manifest)
    settings = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RUN_FILE
    # First of all: with it the folder is the run's, and a start that is cut short can be repeated.
    if not path.is_file():
        write_atomically(path, to_json(_describe(config, manifest)).encode("utf-8"))
    (directory / CONFIG_FILE).write_text(settings, encoding="utf-8")
    model_schema(config, manifest).to_json(directory / SCHEMA_FILE)
    if (manifest.directory / "vocabularies").is_dir():
        shutil.copytree(
            manifest.directory / "vocabularies", directory / "vocabularies", dirs_exist_ok=True
        )


def _describe(config: Config, manifest: Manifest) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "data_fingerprint": manifest.fingerprint,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "finished": False,
    }


def update_run(directory: Path, **changes: Any) -> None:
    """Changes some entries of a run's description."""
    described = _read_run(directory) | changes
    write_atomically(directory / RUN_FILE, to_json(described).encode("utf-8"))


def to_json(value: Any) -> str:
    """Returns JSON text; it has no NaN: an undefined number is null.

    Example:
        >>> print(to_json([1.5, float("nan")]))
        [
          1.5,
          null
        ]
    """
    return json.dumps(_defined(value), indent=2, allow_nan=False)


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _defined(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics_of_json(history: list[dict[str, float | None]]) -> list[dict[str, float]]:
    """Returns the metrics of every epoch as they were: what `to_json` made null is NaN."""
    return [{n: math.nan if x is None else x for n, x in epoch.items()} for epoch in history]


def _read_run(directory: Path) -> dict[str, Any]:
    path = directory / RUN_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path} is damaged, expected the JSON that pipelines.train writes: {error}. Copy the "
            "run again, or train with another --output."
        ) from error


def describe_run(run: str | Path) -> dict[str, Any]:
    """Returns the description of a finished run.

    Args:
        run: the run's folder.

    Returns:
        The contents of `run.json`; metrics of its `history` that are undefined are NaN.

    Raises:
        RunError: when there is no finished run.
    """
    directory = Path(run)
    if not (directory / RUN_FILE).is_file():
        raise RunError(f"No run in {directory}: expected the --output of pipelines.train.")
    description = _read_run(directory)
    if not description.get("finished"):
        raise RunError(f"The run in {directory} is not finished; start pipelines.train again.")
    return {**description, "history": metrics_of_json(description.get("history", []))}


def load_run(run: str | Path) -> tuple[FeedbackModel, dict[str, Any]]:
    """Loads the model of a finished run.

    Args:
        run: the run's folder.

    Returns:
        The model, with its vocabularies read from the folder's files, and the run's description.

    Raises:
        RunError: when there is no finished run, or its model cannot be loaded.
    """
    directory = Path(run)
    description = describe_run(directory)
    path = directory / MODEL_FILE
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged, or was written by another version: {error}. Copy the run again, "
            "or train it again."
        ) from error
    model.schema = Schema.from_json(directory / SCHEMA_FILE)
    return model, description
