"""Publishes a trained model as a SavedModel version that any TensorFlow server can load."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec_feedback.data.manifest import ManifestError, load_manifest
from tfrec_feedback.data.tfrecord import read_records, write_records
from tfrec_feedback.golden import GOLDEN_FILE
from tfrec_feedback.models import FeedbackModel
from tfrec_feedback.runs import CONFIG_FILE, load_run, to_json
from tfrec_feedback.schema import Schema, Vocabulary
from tfrec_feedback.scorer import METHODS, RequestScorer
from tfrec_feedback.skew import golden_records
from tfrec_feedback.warmup import WARMUP_FILE, warmup_requests

_READ = 500  # records of the test split that golden requests are chosen from


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
    records: Iterable[bytes] = (),
) -> Path:
    """Writes a model as the next version under `model_base`, all at once or not at all.

    The version is written under a hidden name, flushed to the disk and renamed, so that a server
    watching the folder never sees half of it. Published versions are never touched.

    `assets.extra/` holds `schema.json`, the requests that TensorFlow Serving warms up with, and
    golden requests with the scores that the Keras model gives them.

    Args:
        model: a trained feedback model.
        model_base: folder of the model's versions; made when it does not exist.
        version: a positive integer; default: the time, in seconds since 1970.
        extra: further files of `assets.extra/`, by name.
        k: see `RequestScorer`.
        calibrate: see `RequestScorer`.
        records: request records of a log, some of which become golden requests.

    Returns:
        The folder of the version.

    Raises:
        ExportError: when the version exists or is not a positive integer.
        CalibrationError: for `calibrate` with a model that cannot be calibrated.
    """
    version = int(time.time()) if version is None else version
    if not 0 < version < 2**63:
        raise ExportError(f"A version is a positive integer of 63 bits, got {version}.")
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
            signatures = scorer.signatures()
            # A server takes no gradients.
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            tf.saved_model.save(scorer, str(staging), signatures=signatures, options=options)
        _set_methods(staging)
        directory = staging / "assets.extra"
        _write_extra(directory, schema, extra or {})
        write_records(
            directory / WARMUP_FILE, warmup_requests(model.schema, signatures, base.resolve().name)
        )
        write_records(directory / GOLDEN_FILE, golden_records(model, records, calibrate))
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


def _set_methods(directory: Path) -> None:
    """Names the APIs that signatures answer: `tf.saved_model.save` says Predict of all.

    TensorFlow Serving refuses Regress and Classify on signatures that do not say so.
    """
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    for signature, method in METHODS.items():
        updater.replace_method_name(signature, method)
    updater.save()
    # It is the checksum of the file that has just changed, read by registries, not by servers.
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def _write_extra(directory: Path, schema: Schema, extra: Mapping[str, str | bytes]) -> None:
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
    synthetic: bool = False,
) -> Path:
    """Publishes the model of a finished run, with its configuration and metrics beside it.

    Args:
        run: the run's folder, from `pipelines.train`.
        model_base: folder of the model's versions.
        version: see `publish`.
        k: see `RequestScorer`.
        calibrate: see `RequestScorer`.
        synthetic: makes all golden requests up, so that no user's data leaves the log. They are as
            well where the data of the run is gone, has changed, or holds interactions.

    Returns:
        The folder of the version.
    """
    model, description = load_run(run)
    directory = Path(run)
    records = [] if synthetic else _test_records(description)
    version = int(time.time()) if version is None else version
    exported = {
        "version": version,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "calibrate": calibrate,
        "golden_requests": "test split" if records else "synthetic",
    }
    extra: dict[str, str | bytes] = {
        "config.toml": (directory / CONFIG_FILE).read_bytes(),
        "run.json": to_json({**description, "export": exported}),
    }
    evaluation = directory / "evaluation.json"
    if evaluation.is_file():
        extra["metrics.json"] = evaluation.read_bytes()
    options: dict[str, Any] = {"k": k, "calibrate": calibrate, "records": records}
    return publish(model, model_base, version=version, extra=extra, **options)


def _test_records(description: Mapping[str, Any]) -> list[bytes]:
    """Returns the first records of the test split a run was prepared with, where they are left."""
    try:
        manifest = load_manifest(description["config"]["data"]["directory"])
        manifest.require("requests")
        paths = manifest.shard_paths("test")
    except (ManifestError, OSError):
        return []
    if manifest.fingerprint != description["data_fingerprint"]:
        return []
    # Any intact records will do: damage is reported where the split is scored.
    intact = (read_records(path, skip_corrupt=True) for path in paths)
    records = itertools.chain.from_iterable(intact)
    return [record for _, record in itertools.islice(records, _READ)]
