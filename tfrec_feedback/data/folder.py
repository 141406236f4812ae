"""The folder that a preparation writes, and which of its files are its own.

A finished folder has a manifest. One that is being written, or whose preparation was interrupted,
has `IN_PROGRESS`, which lists what it may hold. Only what these two name is removed or replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tfrec_feedback.data.manifest import (
    MANIFEST_FILE,
    SCHEMA_FILE,
    Manifest,
    read_manifest,
    save_manifest,
    write_atomically,
)
from tfrec_feedback.data.shards import TRUTH_FILE
from tfrec_feedback.schema import Vocabulary

IN_PROGRESS = ".preparing.json"


def check_output(output: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raises unless a folder may be written.

    Args:
        output: the folder.
        overwrite: replace data prepared earlier.
        inputs: files and folders that are read.

    Raises:
        FileExistsError: when the folder holds an input, or prepared data without `overwrite`.
    """
    for path in inputs:
        if path.resolve().is_relative_to(output.resolve()):
            raise FileExistsError(
                f"{path} is to be read, so it must not be in the output folder {output}. Choose a "
                "folder for prepared data alone."
            )
    if (output / MANIFEST_FILE).exists() and not overwrite:
        raise FileExistsError(
            f"{output} already holds prepared data. Use another folder, or `--overwrite`."
        )


def claim_folder(directory: Path, files: Iterable[str]) -> None:
    """Removes what an earlier preparation wrote, and notes what this one is going to write.

    Args:
        directory: the output folder.
        files: everything to write, relative to the folder, with forward slashes.

    Raises:
        FileExistsError: when one of `files` is there that no preparation wrote; nothing is changed.
        ManifestError: when the folder's manifest is not one this version reads.
        SchemaError: when its schema is not one this version reads.
    """
    earlier, files = owned_files(directory), {MANIFEST_FILE, *files}
    foreign = sorted(file for file in files - earlier if (directory / file).exists())
    if foreign:
        raise FileExistsError(
            f"{directory} holds {foreign[:5]}, and nothing there says that a preparation wrote "
            f"{'them' if len(foreign) > 1 else 'it'}. Use another folder, or remove what is there."
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / IN_PROGRESS, json.dumps(sorted(earlier | files)).encode())
    (directory / MANIFEST_FILE).unlink(missing_ok=True)
    for path in (directory / file for file in earlier):
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.tmp").unlink(missing_ok=True)


def complete_folder(manifest: Manifest, directory: Path) -> None:
    """Writes the manifest: from now on the folder counts as prepared."""
    save_manifest(manifest, directory)
    (directory / IN_PROGRESS).unlink()


def owned_files(directory: Path) -> set[str]:
    """Returns what earlier preparations wrote into a folder, or were about to.

    Args:
        directory: an output folder; it need not exist.

    Returns:
        Paths relative to the folder, with forward slashes.

    Raises:
        ManifestError: when the folder's manifest is not one this version reads.
        SchemaError: when its schema is not one this version reads.
    """
    owned: set[str] = set()
    if (directory / MANIFEST_FILE).exists():
        manifest = read_manifest(directory)
        owned = {MANIFEST_FILE, SCHEMA_FILE}
        owned |= {shard.file for split in manifest.splits.values() for shard in split.shards}
        if manifest.format == "requests":
            owned.add(TRUTH_FILE)
        if (directory / SCHEMA_FILE).exists():
            encodings = [feature.encoding for feature in manifest.schema().features]
            owned |= {e.file for e in encodings if isinstance(e, Vocabulary) and e.file}
    if (directory / IN_PROGRESS).exists():
        owned |= set(json.loads((directory / IN_PROGRESS).read_text(encoding="utf-8")))
    # A manifest may come from elsewhere, with paths that lead out of the folder.
    return {file for file in owned if _is_inside(PurePosixPath(file))}


def _is_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and ".." not in path.parts
