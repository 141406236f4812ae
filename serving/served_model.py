"""The versions of one model: which are loaded, which answer, and which wait for their last call."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from serving import server_wire
from serving.loader import LoadedModel, ModelError
from serving.model_config import ModelConfig, scan

_LOG = logging.getLogger(__name__)
_INTERNAL = 13
_REMEMBERED = 100  # versions that are no longer served, in the answer of GetModelStatus


@dataclasses.dataclass
class VersionStatus:
    """Where one version stands.

    Attributes:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END of `serving.server_wire`.
        code: status code of what ended it; 0 when nothing went wrong.
        message: the same in words.
    """

    version: int
    state: int = server_wire.START
    code: int = 0
    message: str = ""


class _Version:
    """A version that is, was or failed to be loaded. Guarded by the lock of its model."""

    def __init__(self, version: int, print_: object):
        self.status = VersionStatus(version)
        self.print = print_
        self.model: LoadedModel | None = None
        self.calls = 0
        self.retired = False


class ServedModel:
    """One model of a server, over all its versions.

    `prepare` loads what a configuration asks for and `commit` lets it answer: between the two a
    caller may still change its mind. One thread at a time may call them; `lease` and `statuses`
    may be called from any.

    Args:
        config: what to serve.
        load: loads, and warms up, the version in a folder; raises `ModelError` when it cannot.
    """

    def __init__(self, config: ModelConfig, load: Callable[[str, Path], LoadedModel]):
        self.config = config
        self._load = load
        self._lock = threading.Lock()
        self._versions: dict[int, _Version] = {}
        self._active: Mapping[int, _Version] = {}
        self._noted = ""
        self._on_disk: set[int] = set()

    def prepare(self, config: ModelConfig) -> list[int]:
        """Loads the versions of a configuration, the most wanted first, until there are enough.

        A version that failed before is tried again only when its folder has changed.

        Returns:
            The versions that can be served: those that are served now where nothing better is
            found, because the base path is gone or holds nothing that loads.

        Raises:
            ModelError: when there is none.
        """
        found = scan(config.base_path)
        folders = found or {}
        self._on_disk = set(folders)
        good: list[int] = []
        for version in config.policy.order(folders):
            if config.policy.satisfied(len(good)):
                break
            if self._usable(version, folders[version]):
                good.append(version)
        if good:
            self._noted = ""
            return good
        reason = self._nothing(config, found)
        if not self._active:
            raise ModelError(reason)
        if reason != self._noted:  # once, not at every look
            _LOG.error("%s Version %s keeps serving.", reason, sorted(self._active))
            self._noted = reason
        return sorted(self._active)

    def commit(self, config: ModelConfig, good: list[int]) -> None:
        """Serves these versions from now on; others are freed after their last call."""
        with self._lock:
            self.config = config
            before = self._active
            self._active = {version: self._versions[version] for version in sorted(good)}
            for entry in self._active.values():
                entry.status = VersionStatus(entry.status.version, server_wire.AVAILABLE)
            # What was loaded for a configuration that was refused goes the same way.
            leaving = [v for v in self._versions.values() if v.model and not self._serves(v)]
            for entry in leaving:
                entry.retired = True
                entry.status = VersionStatus(entry.status.version, server_wire.UNLOADING)
            idle = [entry for entry in leaving if not entry.calls]
            self._forget()
        if set(before) != set(good):
            _LOG.info("Model %r serves versions %s.", config.name, sorted(good))
        for entry in idle:
            self._free(entry)

    @contextlib.contextmanager
    def lease(self, version: int | None = None) -> Iterator[LoadedModel | None]:
        """Gives a version that is not freed while the block runs.

        Args:
            version: its number; the highest that is served when left out.

        Yields:
            The model; None when that version is not served.
        """
        with self._lock:
            wanted = max(self._active, default=None) if version is None else version
            entry = None if wanted is None else self._active.get(wanted)
            if entry is not None:
                entry.calls += 1
        try:
            yield entry.model if entry else None
        finally:
            if entry is not None:
                with self._lock:
                    entry.calls -= 1
                    last = entry.retired and not entry.calls
                if last:
                    self._free(entry)

    def served(self) -> list[int]:
        """Returns the versions that answer."""
        return sorted(self._active)

    def statuses(self) -> list[VersionStatus]:
        """Returns where every version stands, the highest first."""
        with self._lock:
            entries = sorted(self._versions.items(), reverse=True)
            return [dataclasses.replace(entry.status) for _, entry in entries]

    def forget_failures(self) -> None:
        """Lets versions that failed be tried again."""
        for entry in self._versions.values():
            if entry.status.code:
                entry.print = None

    def close(self) -> None:
        """Serves nothing any more."""
        with self._lock:
            self._active = {}
            entries = [v for v in self._versions.values() if v.model]
            for entry in entries:
                entry.retired = True
            idle = [entry for entry in entries if not entry.calls]
        for entry in idle:
            self._free(entry)

    def _serves(self, entry: _Version) -> bool:
        return self._active.get(entry.status.version) is entry

    def _usable(self, version: int, path: Path) -> bool:
        """Returns whether a version is loaded, after trying to."""
        known = self._versions.get(version)
        if known and known.model and not known.retired:
            return True
        print_ = _fingerprint(path)
        if known and known.status.code and known.print == print_:
            return False
        entry = _Version(version, print_)
        entry.status.state = server_wire.LOADING
        with self._lock:
            self._versions[version] = entry
        try:
            entry.model = self._load(self.config.name, path)
        # Whatever a folder holds: no exception may end a server, nor have it tried at every look.
        except Exception as error:
            _LOG.error("Model %r version %d is not served: %s", self.config.name, version, error)
            code = error.code if isinstance(error, ModelError) else _INTERNAL
            entry.status = VersionStatus(version, server_wire.END, code, str(error))
            return False
        return True

    def _nothing(self, config: ModelConfig, found: Mapping[int, Path] | None) -> str:
        if found is None:
            return f"No folder {config.base_path}: expected one that holds versions 1, 2, ..."
        wanted = config.policy.order(found)
        failures = [s.message for s in self.statuses() if s.code and s.version in wanted]
        if failures:
            return " ".join(failures)
        if found and not wanted:
            return (
                f"No version {' or '.join(map(str, config.policy.versions))} in "
                f"{config.base_path}; there are {sorted(found)}."
            )
        names = sorted(entry.name for entry in config.base_path.glob("*"))[:10]
        return (
            f"No version in {config.base_path}: expected folders named by integers, found {names}. "
            "Publish a model there, or pass the folder above its versions."
        )

    def _free(self, entry: _Version) -> None:
        with self._lock:
            model, entry.model = entry.model, None
        if model is not None:
            model.close()
            entry.status = VersionStatus(entry.status.version, server_wire.END)

    def _forget(self) -> None:
        """Drops the oldest of what ended long ago.

        A version that failed is remembered as long as its folder is there: forgotten, it would be
        tried again at every look.
        """
        ended = sorted(
            version
            for version, entry in self._versions.items()
            if entry.status.state == server_wire.END
            and not (entry.status.code and version in self._on_disk)
        )
        for version in ended[:-_REMEMBERED]:
            del self._versions[version]


def _fingerprint(path: Path) -> object:
    """Returns what changes when a version is published again, repaired, or copied to its end."""
    prints: list[object] = []
    try:
        for part in (path, *sorted(path.rglob("*"))):
            stat = part.stat()
            prints.append((str(part), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    except OSError as error:  # what cannot be read, or goes away meanwhile
        prints.append(str(error))
    return prints
