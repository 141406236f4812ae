"""The models of a server: looks for new versions, swaps them under load, and changes the list."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from serving.calls import Rejected
from serving.loader import LoadedModel, ModelError
from serving.model_config import ModelConfig
from serving.served_model import ServedModel, VersionStatus
from serving.steps import QuietSteps, Steps
from serving.validation import InvalidRequest

_LOG = logging.getLogger(__name__)
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


@dataclasses.dataclass(frozen=True)
class Watching:
    """How versions are looked for and loaded.

    Attributes:
        poll_seconds: pause between two looks at the base paths; 0: look only when told to.
        max_load_retries: tries after the first one that failed.
        retry_seconds: pause before each.
    """

    poll_seconds: float = 1.0
    max_load_retries: int = 1
    retry_seconds: float = 1.0


class ModelManager:
    """Loads, swaps and finds the models of a server.

    One thread looks after the base paths; it, or who asks for a change, loads one version at a
    time, while others answer.

    Args:
        configs: what to serve.
        load: loads, and warms up, the version in a folder, step by step.
        watching: how versions are looked for.

    Raises:
        ModelError: when a model has no version that loads.
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        load: Callable[[str, Path, Steps], LoadedModel],
        watching: Watching = Watching(),
    ):
        self._load_once = load
        self._watching = watching
        self._models: Mapping[str, ServedModel] = {}
        self._changing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        try:
            self._apply(list(configs), strict=False)
        except ModelError:
            self.close()
            raise

    def start(self) -> None:
        """Looks for new versions from now on."""
        if self._watching.poll_seconds > 0:
            self._thread.start()

    def halt(self) -> None:
        """Ends the looking and the loading; what is served answers on."""
        self._stopped.set()

    def close(self) -> None:
        """Ends everything, and frees each version after its last call."""
        self.halt()
        if self._thread.is_alive():
            self._thread.join()
        with self._changing:
            for model in self._models.values():
                model.close()

    def names(self) -> list[str]:
        """Returns the names of the models."""
        return sorted(self._models)

    def served(self, name: str) -> list[int]:
        """Returns the versions of a model that answer."""
        return self._models[name].served()

    def ready(self) -> bool:
        """Returns whether every model answers."""
        models = self._models
        return bool(models) and all(model.served() for model in models.values())

    @contextlib.contextmanager
    def lease(self, spec: Any) -> Iterator[LoadedModel]:
        """Gives the version that a `ModelSpec` asks for; it is not freed while the block runs.

        Raises:
            InvalidRequest: for a spec without a name, and an unknown label.
            Rejected: NOT_FOUND for an unknown model or version.
        """
        found, before = self._find(spec), None
        while found != before:  # a label or a model may move on between the look and the lease
            served, version = found
            with served.lease(version) as model:
                if model is not None:
                    yield model
                    return
            before, found = found, self._find(spec)
        raise Rejected(
            grpc.StatusCode.NOT_FOUND,
            f"Servable not found for request: version {version} of {spec.name!r}; this server has "
            f"versions {served.served()}.",
        )

    def statuses(self, spec: Any) -> list[VersionStatus]:
        """Returns where the versions that a `ModelSpec` asks for stand; all when it names none.

        Raises:
            InvalidRequest: for a spec without a name, and an unknown label.
            Rejected: NOT_FOUND for an unknown model or version.
        """
        served, version = self._find(spec)
        found = [s for s in served.statuses() if version in (None, s.version)]
        if not found:
            raise Rejected(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find version {version} of model {spec.name!r}.",
            )
        return found

    def reload(self, configs: Iterable[ModelConfig], seconds: float | None = None) -> None:
        """Replaces the whole list of models, or, when that fails, nothing.

        Args:
            configs: the new list; models that are not in it are no longer served.
            seconds: longest wait for a change that is under way; None: for ever.

        Raises:
            ModelError: when a model has no version that loads, or a label names a version that is
                not served, or the wait was too long: the list stays as it was.
        """
        with self._change(seconds):
            for model in self._models.values():
                model.forget_failures()
            self._apply(list(configs), strict=True)

    @contextlib.contextmanager
    def _change(self, seconds: float | None) -> Iterator[None]:
        """Lets the block change models, once nothing else does."""
        if not self._changing.acquire(timeout=-1 if seconds is None else max(0.0, seconds)):
            raise ModelError("Versions are being loaded; try again.", _UNAVAILABLE)
        try:
            if self._stopped.is_set():
                raise ModelError("The server is about to stop.", _UNAVAILABLE)
            yield
        finally:
            self._changing.release()

    def rescan(self, forget: bool = False) -> None:
        """Looks for new versions now.

        Args:
            forget: tries versions again that failed.
        """
        with self._changing:
            for model in () if self._stopped.is_set() else self._models.values():
                if forget:
                    model.forget_failures()
                try:
                    model.commit(model.config, model.prepare(model.config))
                except Exception:
                    # Whatever a base path does: this thread goes on, and so does what is served.
                    _LOG.exception("Model %r: looking for versions failed.", model.config.name)

    def _find(self, spec: Any) -> tuple[ServedModel, int | None]:
        """Returns the model, and the version that is asked for, by number or label, if any."""
        if not spec.name:
            raise InvalidRequest("ModelSpec has no name specified.")
        served = self._models.get(spec.name)
        if served is None:
            raise Rejected(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: model {spec.name!r}; this server has "
                f"{self.names()}.",
            )
        if spec.version_label:
            if spec.version_label not in served.config.labels:
                raise InvalidRequest(f"Unrecognized servable version label: {spec.version_label}")
            return served, served.config.labels[spec.version_label]
        return served, spec.version.value if spec.HasField("version") else None

    def _apply(self, configs: list[ModelConfig], strict: bool) -> None:
        """Loads everything first, then swaps: a failure changes nothing."""
        models: dict[str, ServedModel] = {}
        chosen: dict[str, list[int]] = {}
        try:
            for config in configs:
                known = self._models.get(config.name)
                same = known is not None and known.config.base_path == config.base_path
                model = known if known and same else ServedModel(config, self._load)
                models[config.name] = model
                chosen[config.name] = model.prepare(config)
                _check_policy(config, chosen[config.name], strict)
        except Exception:
            for name, model in models.items():
                if self._models.get(name) is model:  # frees what was loaded in vain
                    model.commit(model.config, model.served())
                else:
                    model.close()
            raise
        for config in configs:
            models[config.name].commit(config, chosen[config.name])
        before, self._models = self._models, models
        for model in before.values():
            if model not in models.values():
                model.close()

    def _load(self, name: str, path: Path) -> LoadedModel:
        """Loads a version: the first ones at once, later ones beside calls."""
        if not self._models:
            return self._try(name, path, Steps())
        with QuietSteps(self._stopped.is_set) as steps:
            return self._try(name, path, steps)

    def _try(self, name: str, path: Path, steps: Steps) -> LoadedModel:
        """Loads a version, again when that fails: it may be a passing fault of the disk."""
        for tries_left in reversed(range(1 + self._watching.max_load_retries)):
            try:
                return self._load_once(name, path, steps)
            except ModelError:
                if not tries_left or self._stopped.wait(self._watching.retry_seconds):
                    raise
        raise AssertionError("unreachable")

    def _watch(self) -> None:
        while not self._stopped.wait(self._watching.poll_seconds):
            start = time.monotonic()
            self.rescan()
            _LOG.debug("Looked for versions in %.3f s.", time.monotonic() - start)


def _check_policy(config: ModelConfig, good: list[int], strict: bool) -> None:
    """Raises, or at start-up only logs, when labels or a policy name what is not served."""
    problems = [
        f"label {label!r} names version {version}, which is not served"
        for label, version in sorted(config.labels.items())
        if version not in good
    ]
    missing = sorted(set(config.policy.versions) - set(good))
    if missing:
        problems.append(f"versions {missing} are not served")
    if not problems:
        return
    message = f"Model {config.name!r}: {'; '.join(problems)}; served: {sorted(good)}."
    if strict:
        raise ModelError(message, grpc.StatusCode.FAILED_PRECONDITION.value[0])
    _LOG.error("%s", message)
