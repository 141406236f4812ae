"""The folder of a model's versions: what is published, and which versions carry a label.

Labels stand in `labels.json` beside the versions: `{"stable": [12, 11], "canary": [13]}`, the
version that has a label first and those that had it before after it. Servers watching the folder
look at names that are integers, and at nothing else.

Needs no TensorFlow: versions are looked at, never loaded.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

LABELS_FILE = "labels.json"
LABELS = ("stable", "canary")
LARGEST_VERSION = 2**63 - 1
_REMEMBERED = 10  # earlier versions of a label


def version_number(name: str) -> int | None:
    """Returns the version that a folder's name stands for.

    Returns:
        None for names that servers pass over: `.tmp-3`, and numbers that no request can hold,
        which has 64 bits for them.
    """
    number = int(name) if name.isascii() and name.isdecimal() else LARGEST_VERSION + 1
    return number if number <= LARGEST_VERSION else None


class VersionError(RuntimeError):
    """A folder of versions cannot be used as asked; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Version:
    """A published version.

    Attributes:
        number: the integer that names its folder.
        size: bytes of all its files.
        published: when it was exported; where `run.json` does not say, the time of its folder.
        model: name of the kind of model in `run.json`, or an empty text.
        complete: whether it holds a `saved_model.pb`.
    """

    number: int
    size: int
    published: datetime.datetime
    model: str
    complete: bool


def list_versions(base: Path) -> list[Version]:
    """Returns the versions in a folder, the highest first.

    Raises:
        VersionError: when there is no such folder, or no version in it.
    """
    numbers = _numbers(base)
    if not numbers:
        raise VersionError(
            f"No version in {base}: expected folders named by integers. Publish one with "
            "`python -m pipelines.export`, or pass the folder above its versions."
        )
    return [_describe(base / str(number)) for number in sorted(numbers, reverse=True)]


def _numbers(base: Path) -> set[int]:
    if not base.is_dir():
        raise VersionError(f"No folder {base}: expected one that holds versions 1, 2, ...")
    numbers = {version_number(entry.name) for entry in base.iterdir() if entry.is_dir()}
    return {n for n in numbers if n is not None and (base / str(n)).is_dir()}


def _describe(folder: Path) -> Version:
    run: Any = {}
    try:
        run = json.loads((folder / "assets.extra" / "run.json").read_text(encoding="utf-8"))
        exported = run["export"]["time"]
        published = datetime.datetime.fromisoformat(exported)
    except (OSError, ValueError, KeyError, TypeError):
        published = datetime.datetime.fromtimestamp(folder.stat().st_mtime, datetime.UTC)
    try:
        model = str(run["config"]["model"]["name"])
    except (KeyError, TypeError):
        model = ""
    return Version(
        number=int(folder.name),
        size=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        published=published,
        model=model,
        complete=(folder / "saved_model.pb").is_file(),
    )


def read_labels(base: Path) -> dict[str, list[int]]:
    """Returns by label the version that has it, then those that had it before.

    Raises:
        VersionError: when the file is not what `write_labels` writes.
    """
    path = base / LABELS_FILE
    if not path.is_file():
        return {}
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        if all(numbers and {type(v) for v in numbers} == {int} for numbers in labels.values()):
            return {str(name): list(numbers) for name, numbers in labels.items()}
    except (ValueError, TypeError, AttributeError):
        pass
    raise VersionError(
        f'{path} is damaged: expected {{"stable": [version, earlier ones, ...]}}. Repair or remove '
        "it, and promote the versions again."
    )


def write_labels(base: Path, labels: dict[str, list[int]]) -> None:
    """Writes the labels, all at once: whoever reads meanwhile sees the old or the new file."""
    write_file(base / LABELS_FILE, json.dumps(labels, sort_keys=True) + "\n")


def write_file(path: Path, text: str) -> None:
    """Writes a file that exists under its name only when it is complete and on the disk."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # temporary files are the writer's alone; servers read this one
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def promote(base: Path, version: int, label: str) -> dict[str, list[int]]:
    """Gives a version a label; the version that had it keeps its other labels.

    Returns:
        The labels as they are now.

    Raises:
        VersionError: for an unknown version, one without a model, or an unknown label.
    """
    if label not in LABELS:
        raise VersionError(f"Unknown label {label!r}; there are {list(LABELS)}.")
    known = {v.number: v for v in list_versions(base)}
    if version not in known:
        raise VersionError(f"No version {version} in {base}; there are {sorted(known)}.")
    if not known[version].complete:
        raise VersionError(
            f"Version {version} in {base} holds no saved_model.pb: it is not complete, and a "
            "server would refuse it. Publish again."
        )
    labels = read_labels(base)
    before = [v for v in labels.get(label, []) if v != version]
    labels[label] = [version, *before][: _REMEMBERED + 1]
    write_labels(base, labels)
    return labels


def rollback(base: Path, label: str) -> tuple[int, int]:
    """Gives a label back to the version that had it before, passing over those that are gone.

    Returns:
        The version that had the label, and the one that has it now.

    Raises:
        VersionError: when no version had it before, or none of those is left.
    """
    labels, known = read_labels(base), _numbers(base)
    if label not in labels:
        raise VersionError(f"No version in {base} has the label {label!r}: nothing to roll back.")
    current, *earlier = labels[label]
    left = [version for version in earlier if (base / str(version) / "saved_model.pb").is_file()]
    if not left:
        raise VersionError(
            f"Label {label!r} of {base} has no earlier version to go back to (it had {earlier}; "
            f"there are {sorted(known)}). Promote one instead."
        )
    labels[label] = left
    write_labels(base, labels)
    return current, left[0]


def prune(base: Path, keep: int) -> list[int]:
    """Removes old versions: all below the highest `keep` complete ones, but for labelled ones.

    Returns:
        The versions that were removed.

    Raises:
        VersionError: for a `keep` below 1.
    """
    if keep < 1:
        raise VersionError(f"At least 1 version is kept, got {keep}.")
    labelled = {versions[0] for versions in read_labels(base).values()}
    versions = list_versions(base)
    complete = [version.number for version in versions if version.complete]
    lowest = complete[keep - 1] if len(complete) >= keep else 0
    numbers = [version.number for version in versions if version.number < lowest]
    removed = [number for number in numbers if number not in labelled]
    for number in removed:
        # Under a name that no server looks at, a version is gone at once and never half there.
        doomed = Path(tempfile.mkdtemp(prefix=f".pruned-{number}-", dir=base))
        os.rename(base / str(number), doomed / str(number))
        shutil.rmtree(doomed)
    return removed


def models_config(name: str, base_path: str, labels: dict[str, list[int]]) -> str:
    """Returns the `models.config` that makes TensorFlow Serving serve what the labels say.

    Args:
        name: name the model is served under.
        base_path: where the server finds the folder.
        labels: from `read_labels`. Labels can stand on loaded versions alone, so exactly the
            labelled versions are served; without labels, the highest one.
    """
    current = {label: versions[0] for label, versions in sorted(labels.items())}
    policy = "".join(f"        versions: {v}\n" for v in sorted(set(current.values())))
    chosen = (
        f"      specific {{\n{policy}      }}\n"
        if current
        else "      latest {\n        num_versions: 1\n      }\n"
    )
    stands = "".join(
        f"    version_labels {{\n      key: {json.dumps(label)}\n      value: {version}\n    }}\n"
        for label, version in current.items()
    )
    return (
        "# Written by `python -m serving.publish render`; do not edit.\n"
        "model_config_list {\n  config {\n"
        f"    name: {json.dumps(name)}\n    base_path: {json.dumps(base_path)}\n"
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{\n{chosen}    }}\n{stands}  }}\n}}\n"
    )
