"""Publishes a trained model as a SavedModel version that any TensorFlow server can load."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec_feedback.models import FeedbackModel
from tfrec_feedback.runs import CONFIG_FILE, load_run
from tfrec_feedback.schema import Schema, Vocabulary
from tfrec_feedback.scorer import RequestScorer


class ExportError(RuntimeError):
    """A version cannot be published."""


def publish(
    model: FeedbackModel,
    model_base: str | Path,
    *,
    version: int | None = None,
    extra: dict[str, str | bytes] | None = None,
    k: int = 100,
    calibrate: bool = False,
) -> Path:
    """Writes a model as the next version under `model_base`, all at once or not at all.

    The version is written under a hidden name, flushed to the disk and renamed, so that a server
    watching the folder never sees half of it. Published versions are never touched.

    Args:
        model: a trained feedback model.
        model_base: folder of the model's versions; made when it does not exist.
        version: a positive integer; default: the time, in seconds since 1970.
        extra: further files of `assets.extra/`, by name; `schema.json` is always there.
        k: see `RequestScorer`.
        calibrate: see `RequestScorer`.

    Returns:
        The folder of the version.

    Raises:
        ExportError: when the version exists or is not a positive integer.
        CalibrationError: for `calibrate` with a model that cannot be calibrated.
    """
    version = int(time.time()) if version is None else version
    if version < 1:
        raise ExportError(f"A version is a positive integer, got {version}.")
    base = Path(model_base)
    target = base / str(version)
    if target.exists():
        raise ExportError(
            f"Version {version} is already published at {target}; published versions are never "
            "changed. Choose another --version, or leave it out to take the time."
        )
    base.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".tmp-{version}-", dir=base))
    try:
        with tempfile.TemporaryDirectory() as vocabularies:
            schema = _with_vocabulary_files(model.schema, Path(vocabularies))
            scorer = RequestScorer(model, schema, k, calibrate)
            tf.saved_model.save(scorer, str(staging), signatures=scorer.signatures())
        _write_extra(staging / "assets.extra", schema, extra or {})
        _flush(staging)
        staging.chmod(0o755)
        os.rename(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _flush_folder(base)
    return target


def _with_vocabulary_files(schema: Schema, directory: Path) -> Schema:
    """Writes every vocabulary to its own file: SavedModel assets are files."""

    def to_file(feature: Any) -> Any:
        if not isinstance(feature.encoding, Vocabulary):
            return feature
        tokens = schema.vocabulary(feature.table)
        name = f"{feature.table}.txt"
        text = "".join(f"{token}\n" for token in tokens)
        (directory / name).write_text(text, encoding="utf-8")
        encoding = Vocabulary(dtype=feature.encoding.dtype, file=name, size=len(tokens))
        return dataclasses.replace(feature, encoding=encoding)

    return dataclasses.replace(
        schema,
        context=tuple(to_file(feature) for feature in schema.context),
        candidate=tuple(to_file(feature) for feature in schema.candidate),
        directory=directory,
    )


def _write_extra(directory: Path, schema: Schema, extra: dict[str, str | bytes]) -> None:
    """Writes `assets.extra/`; its schema finds the vocabularies in `../assets/`."""
    directory.mkdir()
    in_assets = dataclasses.replace(
        schema,
        context=tuple(_in_assets(feature) for feature in schema.context),
        candidate=tuple(_in_assets(feature) for feature in schema.candidate),
    )
    in_assets.to_json(directory / "schema.json")
    for name, content in extra.items():
        data = content.encode("utf-8") if isinstance(content, str) else content
        (directory / name).write_bytes(data)


def _in_assets(feature: Any) -> Any:
    if not isinstance(feature.encoding, Vocabulary):
        return feature
    encoding = dataclasses.replace(feature.encoding, file=f"../assets/{feature.encoding.file}")
    return dataclasses.replace(feature, encoding=encoding)


def _flush(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir():
            _flush_folder(path)
        else:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    _flush_folder(directory)


def _flush_folder(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def export_run(
    run: str | Path,
    model_base: str | Path,
    version: int | None = None,
    k: int = 100,
    calibrate: bool = False,
) -> Path:
    """Publishes the model of a finished run, with its configuration and metrics beside it.

    Args:
        run: the run's folder, from `pipelines.train`.
        model_base: folder of the model's versions.
        version: see `publish`.
        k: see `RequestScorer`.
        calibrate: see `RequestScorer`.

    Returns:
        The folder of the version.
    """
    model, description = load_run(run)
    directory = Path(run)
    extra: dict[str, str | bytes] = {
        "config.toml": (directory / CONFIG_FILE).read_bytes(),
        "run.json": json.dumps(description, indent=2),
    }
    evaluation = directory / "evaluation.json"
    if evaluation.is_file():
        extra["metrics.json"] = evaluation.read_bytes()
    return publish(model, model_base, version=version, extra=extra, k=k, calibrate=calibrate)
