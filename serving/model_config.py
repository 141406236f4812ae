"""What a server is told to serve: models, which of their versions, and the versions' labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving import server_wire
from serving.versions import version_number


class ConfigError(ValueError):
    """A list of models that makes no sense; the message names the model."""


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions in a base path are served.

    Attributes:
        latest: so many of the highest that load; 0: no such limit.
        versions: these alone; empty: any.
    """

    latest: int = 1
    versions: tuple[int, ...] = ()

    @classmethod
    def all(cls) -> VersionPolicy:
        """Every version."""
        return cls(latest=0)

    @classmethod
    def specific(cls, *versions: int) -> VersionPolicy:
        """These versions, where they exist."""
        return cls(latest=0, versions=versions)

    def order(self, found: Iterable[int]) -> list[int]:
        """Returns the versions that may be served, the most wanted first."""
        return sorted((v for v in found if not self.versions or v in self.versions), reverse=True)

    def satisfied(self, count: int) -> bool:
        """Returns whether so many served versions are enough."""
        return 0 < self.latest <= count


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One served model.

    Attributes:
        name: name it is served under.
        base_path: folder of its versions, `<base_path>/<integer>`.
        policy: which of them are served.
        labels: versions by label, e.g. `{"stable": 3, "canary": 4}`.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)


def scan(base: Path) -> dict[int, Path] | None:
    """Returns the folders of the versions in a base path; None when it cannot be read.

    Other names, such as `.tmp-3`, are ignored, and so are files.
    """
    try:
        return {
            number: entry
            for entry in base.iterdir()
            if (number := version_number(entry.name)) is not None and entry.is_dir()
        }
    except OSError:
        return None


def read_config_file(path: str | Path) -> list[ModelConfig]:
    """Reads the models of a `--model_config_file` of TF Serving.

    Args:
        path: a `ModelServerConfig` as text:
            `model_config_list { config { name: "dfn" base_path: "/models/dfn" } }`.

    Raises:
        ConfigError: when it cannot be read, or its list makes no sense.
    """
    message = server_wire.ModelServerConfig()
    try:
        text_format.Parse(Path(path).read_text("utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"{path} is no readable list of models: {error}") from error
    return from_proto(message)


def from_proto(message: Any) -> list[ModelConfig]:
    """Reads a `ModelServerConfig`.

    Raises:
        ConfigError: when the list is missing, names a model twice, or lacks a name or base path.
    """
    if not message.HasField("model_config_list"):
        raise ConfigError("Expected a model_config_list; other configurations are not supported.")
    configs = [_from_proto(entry) for entry in message.model_config_list.config]
    names = [config.name for config in configs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"The list names models {repeated} more than once.")
    return configs


def _from_proto(entry: Any) -> ModelConfig:
    if not entry.name or not entry.base_path:
        raise ConfigError(
            f"Every model needs a name and a base_path, got {entry.name!r} and {entry.base_path!r}."
        )
    if entry.model_platform not in ("", "tensorflow"):
        raise ConfigError(
            f"Model {entry.name!r}: platform {entry.model_platform!r} is not supported; leave it "
            "out or say 'tensorflow'."
        )
    labels = dict(entry.version_labels)
    return ModelConfig(entry.name, Path(entry.base_path), _policy(entry), labels)


def _policy(entry: Any) -> VersionPolicy:
    policy = entry.model_version_policy
    chosen = [kind for kind in ("latest", "all", "specific") if policy.HasField(kind)]
    if len(chosen) > 1:
        raise ConfigError(f"Model {entry.name!r}: choose one version policy, not {chosen}.")
    if chosen == ["all"]:
        return VersionPolicy.all()
    if chosen == ["specific"]:
        if not policy.specific.versions:
            raise ConfigError(f"Model {entry.name!r}: the specific policy names no versions.")
        return VersionPolicy.specific(*policy.specific.versions)
    return VersionPolicy(policy.latest.num_versions or 1)
