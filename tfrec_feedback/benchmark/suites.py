"""The logs that models are compared on, each with its preparation and its settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrec_feedback.data.manifest import MANIFEST_FILE, Manifest, load_manifest
from tfrec_feedback.schema import suggest

DEFAULT_MODELS = (
    *("fm", "wide_deep", "pnn", "deepfm", "nfm", "afm", "dcn", "dcn_v2"),
    *("din", "din_plus", "dien", "dsin", "autoint", "autoint_umn", "dmt"),
    *("dfn", "dumn"),
)
"""Every baseline and both models of the papers, in the order of the tables."""

LOGS = "../shared/data"
"""Where raw logs are looked for, unless `$FEEDBACK_DATA` says otherwise."""

_PREPARATION = {"history_length": 30, "num_samples": 4, "num_sessions": 5}


@dataclasses.dataclass(frozen=True)
class Suite:
    """A log to compare models on.

    Attributes:
        name: of the suite, and of its folder.
        source: kind of log, see `tfrec_feedback.data.sources.load_source`.
        config: name of the file with the settings all models share, in `pipelines/configs`.
        log: folder or file of the raw log below the folder of logs; None for a simulated one.
        reading: further arguments of `load_source`.
        preparation: arguments of `tfrec_feedback.data.prepare.prepare`.
    """

    name: str
    source: str
    config: str
    log: str | None = None
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preparation: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(_PREPARATION))


SUITES = {
    suite.name: suite
    for suite in (
        Suite("kuairand-pure", "kuairand-pure", "benchmark_kuairand_pure.toml", "kuairand-pure"),
        Suite(
            "kuairand-27k-feedback",
            "kuairand-27k-feedback",
            "benchmark_kuairand_27k_feedback.toml",
            "kuairand-27k-feedback",
        ),
        Suite(
            "simulated",
            "simulated",
            "benchmark_simulated.toml",
            reading={"num_users": 300, "num_items": 400, "num_days": 14, "seed": 0},
        ),
    )
}
"""The suites by name."""


def find_suite(name: str) -> Suite:
    """Returns suite `name`.

    Raises:
        ValueError: for an unknown name, with the closest known one.

    Example:
        >>> find_suite("simulated").source
        'simulated'
    """
    if name not in SUITES:
        raise ValueError(
            f"Unknown suite {name!r}; expected one of {list(SUITES)}.{suggest(name, SUITES)}"
        )
    return SUITES[name]


def check_models(names: list[str]) -> list[str]:
    """Returns model names as given, each of them known and named once.

    Raises:
        ValueError: for an unknown or repeated name, with the closest known one.
    """
    from tfrec_feedback.models import MODELS

    if not names:
        raise ValueError("No models to compare: name some, for example --models dfn,dumn.")
    for name in names:
        if name not in MODELS:
            raise ValueError(
                f"Unknown model {name!r}; known: {sorted(MODELS)}.{suggest(name, MODELS)}"
            )
        if names.count(name) > 1:
            raise ValueError(f"Model {name!r} is named {names.count(name)} times; once will do.")
    return names


def suite_data(suite: Suite, folder: Path, logs: Path | None = None) -> Manifest:
    """Returns the suite's prepared data, prepared now where they are missing.

    Args:
        suite: which log.
        folder: where the prepared data are, or are to be.
        logs: folder of raw logs; default: `$FEEDBACK_DATA`, or else `LOGS`.

    Raises:
        EventLogError: when the raw log is missing or not as expected.
        ManifestError: when the folder holds damaged data.
    """
    if (folder / MANIFEST_FILE).is_file():
        return load_manifest(folder)
    from tfrec_feedback.data.prepare import prepare
    from tfrec_feedback.data.sources import load_source

    path = None
    if suite.log is not None:
        path = (logs or Path(os.environ.get("FEEDBACK_DATA", LOGS))) / suite.log
        if not path.exists():
            raise FileNotFoundError(
                f"Suite {suite.name!r} needs the raw log {path}, which is not there. Say where "
                "logs are with --logs or $FEEDBACK_DATA, or name prepared data with --data."
            )
    log = load_source(suite.source, path, **suite.reading)
    return prepare(log, folder, **suite.preparation)
