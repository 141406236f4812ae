"""What a request holds: the one description that every other part is derived from.

A *request* is one user asking for scores: his context, his feedback histories, and the candidates
to score. The TFRecord parser, the embedding tables, the SavedModel signatures and the client's
encoder are all built from a `Schema`; nothing is declared twice.

Pure Python: importing this module loads neither TensorFlow nor numpy.

Example:
    >>> item = Feature("item_id", Vocabulary(tokens=(10, 11, 12), dtype="int64"))
    >>> schema = Schema(
    ...     context=(Feature("hour", Identity(24)),),
    ...     candidate=(item, Feature("duration", Buckets((10.0, 60.0)))),
    ...     histories=(FeedbackSequence("click", ("item_id",), max_length=30),),
    ...     tasks=(Task("ctr", positive=("click", "like"), negative=("dislike",)),),
    ... )
    >>> Schema.from_json(schema.to_json()) == schema
    True
    >>> [spec.name for spec in schema.inputs()]
    ['hour', 'item_id', 'duration', 'num_candidates', 'click_item_id', 'click_length']
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfrec_feedback.encodings import (
    ENCODINGS,
    FIRST_ROW,
    PADDING_ROW,
    UNKNOWN_ROW,
    Buckets,
    Encoding,
    Hashing,
    Identity,
    SchemaError,
    Vocabulary,
    suggest,
)
from tfrec_feedback.features import (
    Feature,
    FeedbackSequence,
    InputSpec,
    Task,
    sequence_specs,
    value_specs,
)

__all__ = [
    "FIRST_ROW",
    "PADDING_ROW",
    "UNKNOWN_ROW",
    "Buckets",
    "Encoding",
    "Feature",
    "FeedbackSequence",
    "Hashing",
    "Identity",
    "InputSpec",
    "Schema",
    "SchemaError",
    "Task",
    "Vocabulary",
    "suggest",
]

_FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Schema:
    """Everything a request holds. See the module docstring for an example.

    Attributes:
        context: features of the user and the moment, `[R]`.
        candidate: features of the items to score, `[R, N]`.
        histories: the user's feedback sequences, `[R, T]` each.
        tasks: what is predicted.
        directory: where vocabulary files are looked up; not part of the JSON, not compared.

    Raises:
        SchemaError: for duplicate or unknown names, and for shared tables that disagree.
    """

    context: tuple[Feature, ...]
    candidate: tuple[Feature, ...]
    histories: tuple[FeedbackSequence, ...] = ()
    tasks: tuple[Task, ...] = (
        Task("ctr", positive=("click", "like"), negative=("dislike",)),
        Task("dislike", positive=("dislike",)),
    )
    directory: Path | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for field in ("context", "candidate", "histories", "tasks"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not self.candidate:
            raise SchemaError("A schema needs at least one candidate feature: what is scored?")
        if not self.tasks:
            raise SchemaError("A schema needs at least one task.")
        self._check_histories()
        self._check_unique("task", [task.name for task in self.tasks])
        self._check_unique("tensor", [spec.name for spec in self.training_inputs()])
        self._check_tables()

    def _check_histories(self) -> None:
        known = [feature.name for feature in self.candidate]
        for sequence in self.histories:
            for name in sequence.features:
                if name not in known:
                    raise SchemaError(
                        f"FeedbackSequence {sequence.name!r} names {name!r}, which is not a "
                        f"candidate feature. Candidate features: {known}.{suggest(name, known)}"
                    )
            self._check_unique(f"feature of FeedbackSequence {sequence.name!r}", sequence.features)

    @staticmethod
    def _check_unique(what: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise SchemaError(f"Duplicate {what} {name!r}: every {what} needs its own name.")
            seen.add(name)

    def _check_tables(self) -> None:
        owner: dict[str, Feature] = {}
        for feature in self.features:
            first = owner.setdefault(feature.table, feature)
            if first.encoding != feature.encoding:
                raise SchemaError(
                    f"Features {first.name!r} and {feature.name!r} share table "
                    f"{feature.table!r} but encode differently: {first.encoding} and "
                    f"{feature.encoding}. Give one of them its own table, or equal encodings."
                )

    @property
    def features(self) -> tuple[Feature, ...]:
        """Context, then candidate features."""
        return self.context + self.candidate

    @property
    def tables(self) -> dict[str, Feature]:
        """Embedding tables by name, each with one of the features that use it."""
        return {feature.table: feature for feature in reversed(self.features)}

    def table_offsets(self) -> dict[str, int]:
        """Returns where each table begins when all tables are stacked in one, by table name."""
        offsets: dict[str, int] = {}
        total = 0
        for name, feature in self.tables.items():
            offsets[name] = total
            total += feature.num_rows
        return offsets

    @property
    def feedbacks(self) -> tuple[str, ...]:
        """Feedback flags the tasks are defined on, sorted: the records hold `label_<flag>`."""
        flags = {f for task in self.tasks for f in (*task.positive, *task.negative)}
        return tuple(sorted(flags))

    @property
    def samples(self) -> tuple[FeedbackSequence, ...]:
        """Sample sequences of the histories that have any, in the order of the histories."""
        return tuple(history.samples for history in self.histories if history.num_samples)

    def feature(self, name: str) -> Feature:
        """Returns the context or candidate feature `name`, or raises naming the closest one."""
        by_name = {feature.name: feature for feature in self.features}
        if name not in by_name:
            raise SchemaError(
                f"Unknown feature {name!r}. The schema has {list(by_name)}.{suggest(name, by_name)}"
            )
        return by_name[name]

    def history(self, name: str) -> FeedbackSequence:
        """Returns the feedback sequence `name`, or raises naming the closest one."""
        by_name = {sequence.name: sequence for sequence in self.histories}
        if name not in by_name:
            raise SchemaError(
                f"Unknown feedback history {name!r}. The schema has {list(by_name)}."
                f"{suggest(name, by_name)}"
            )
        return by_name[name]

    def inputs(self) -> tuple[InputSpec, ...]:
        """Returns the tensors of a request batch: context, candidates, histories, in order."""
        specs: list[InputSpec] = []
        for feature in self.context:
            specs += value_specs(feature, feature.name, ("R",), "context")
        for feature in self.candidate:
            specs += value_specs(feature, feature.name, ("R", "N"), "candidate")
        specs.append(InputSpec("num_candidates", "int64", ("R",), "candidate"))
        return (*specs, *self._sequence_inputs(self.histories))

    def training_inputs(self) -> tuple[InputSpec, ...]:
        """Returns `inputs()` and, after them, the tensors of the samples.

        Samples are drawn when a log is prepared and read in training alone: no server expects
        them. Their tensors look like those of a history called `<history>_sample`.
        """
        return (*self.inputs(), *self._sequence_inputs(self.samples))

    def _sequence_inputs(self, sequences: Iterable[FeedbackSequence]) -> list[InputSpec]:
        candidate = {feature.name: feature for feature in self.candidate}
        return [spec for sequence in sequences for spec in sequence_specs(sequence, candidate)]

    def row_inputs(self) -> tuple[InputSpec, ...]:
        """Returns the tensors of a row batch: the same with one candidate a request."""
        return tuple(
            dataclasses.replace(spec, axes=tuple(axis for axis in spec.axes if axis != "N"))
            for spec in self.inputs()
            if spec.name != "num_candidates"
        )

    def vocabulary(self, table: str) -> tuple[str | int, ...]:
        """Returns the tokens of a table's vocabulary, read from its file where it has one.

        Raises:
            SchemaError: when the table has no vocabulary, or its file is missing or not as long
                as the schema says.
        """
        if table not in self.tables:
            raise SchemaError(
                f"Unknown table {table!r}. The schema has {list(self.tables)}."
                f"{suggest(table, self.tables)}"
            )
        encoding = self.tables[table].encoding
        if not isinstance(encoding, Vocabulary):
            raise SchemaError(f"Table {table!r} is encoded by {encoding.kind}, not a vocabulary.")
        if encoding.tokens is not None:
            return encoding.tokens
        path = self.vocabulary_path(table)
        lines = path.read_text(encoding="utf-8").split("\n")
        if lines and lines[-1] == "":
            lines.pop()
        if len(lines) != encoding.size:
            raise SchemaError(
                f"Vocabulary file {path} of table {table!r} has {len(lines)} lines; the schema "
                f"says {encoding.size}. Schema and vocabulary do not belong together."
            )
        if encoding.dtype == "string":
            return tuple(lines)
        try:
            return tuple(int(line) for line in lines)
        except ValueError as error:
            raise SchemaError(
                f"Vocabulary file {path} of table {table!r} must hold one integer a line: {error}."
            ) from error

    def vocabulary_path(self, table: str) -> Path:
        """Returns the path of a table's vocabulary file, or raises when it is missing."""
        encoding = self.tables[table].encoding
        if not isinstance(encoding, Vocabulary) or encoding.file is None:
            raise SchemaError(f"Table {table!r} has no vocabulary file.")
        path = (self.directory or Path()) / encoding.file
        if not path.is_file():
            raise SchemaError(
                f"Vocabulary file {encoding.file!r} of table {table!r} is missing: looked for "
                f"{path}. It is written beside the schema by `python -m pipelines.prepare`; copy "
                "the whole folder, or pass the schema its `directory`."
            )
        return path

    def without(self, names: Iterable[str]) -> Schema:
        """Returns the schema without some features or histories; records need no change.

        Args:
            names: context or candidate features (left out of every history as well), histories.
        """
        dropped = set(names)
        known = [f.name for f in self.features] + [h.name for h in self.histories]
        for name in sorted(dropped - set(known)):
            raise SchemaError(
                f"Cannot leave out {name!r}: the schema has {known}.{suggest(name, known)}"
            )
        histories = [
            dataclasses.replace(h, features=tuple(f for f in h.features if f not in dropped))
            for h in self.histories
            if h.name not in dropped
        ]
        return dataclasses.replace(
            self,
            context=tuple(f for f in self.context if f.name not in dropped),
            candidate=tuple(f for f in self.candidate if f.name not in dropped),
            histories=tuple(histories),
        )

    def without_sessions(self) -> Schema:
        """Returns the schema without the sessions of its histories; records need no change."""
        histories = tuple(dataclasses.replace(h, num_sessions=0) for h in self.histories)
        return dataclasses.replace(self, histories=histories)

    def with_inline_vocabularies(self) -> Schema:
        """Returns the same schema with every vocabulary's tokens inside it, free of any file."""

        def inline(feature: Feature) -> Feature:
            if not isinstance(feature.encoding, Vocabulary) or feature.encoding.file is None:
                return feature
            tokens = self.vocabulary(feature.table)
            encoding = Vocabulary(dtype=feature.encoding.dtype, tokens=tokens)
            return dataclasses.replace(feature, encoding=encoding)

        return dataclasses.replace(
            self,
            context=tuple(inline(f) for f in self.context),
            candidate=tuple(inline(f) for f in self.candidate),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the schema as JSON-ready dictionaries."""
        return {
            "version": _FORMAT_VERSION,
            "context": [_feature_to_dict(f) for f in self.context],
            "candidate": [_feature_to_dict(f) for f in self.candidate],
            "histories": [dataclasses.asdict(h) for h in self.histories],
            "tasks": [dataclasses.asdict(t) for t in self.tasks],
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Returns the schema as JSON text, and writes it to `path` where one is given."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], directory: Path | None = None) -> Schema:
        """Builds a schema from `to_dict`'s output."""
        keys = {"version", "context", "candidate", "histories", "tasks"}
        _check_keys("schema", data, keys, required={"candidate"})
        if data.get("version", _FORMAT_VERSION) != _FORMAT_VERSION:
            raise SchemaError(
                f"Schema version {data['version']!r} is not supported: this package reads "
                f"version {_FORMAT_VERSION}."
            )
        more = (
            {"tasks": tuple(_from_dict(Task, t) for t in data["tasks"])} if "tasks" in data else {}
        )
        return cls(
            context=tuple(_feature_from_dict(f) for f in data.get("context", ())),
            candidate=tuple(_feature_from_dict(f) for f in data["candidate"]),
            histories=tuple(_from_dict(FeedbackSequence, h) for h in data.get("histories", ())),
            directory=directory,
            **more,
        )

    @classmethod
    def from_json(cls, source: str | Path) -> Schema:
        """Reads a schema from a `.json` file, or from JSON text.

        Vocabulary files are looked up beside the schema's file.
        """
        if isinstance(source, str) and source.lstrip().startswith("{"):
            text, directory = source, None
        else:
            path = Path(source)
            if not path.is_file():
                raise SchemaError(f"No schema at {path}: expected a JSON file or JSON text.")
            text, directory = path.read_text(encoding="utf-8"), path.parent
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise SchemaError(f"Schema is not valid JSON: {error}.") from error
        return cls.from_dict(data, directory)


def _check_keys(what: str, data: object, allowed: set[str], required: set[str]) -> None:
    if not isinstance(data, Mapping):
        raise SchemaError(f"Expected {what} to be a JSON object, got {type(data).__name__}.")
    for key in data:
        if key not in allowed:
            raise SchemaError(
                f"Unknown key {key!r} in {what}; it may hold {sorted(allowed)}."
                f"{suggest(str(key), allowed)}"
            )
    missing = sorted(required - set(data))
    if missing:
        raise SchemaError(f"Missing {missing} in {what}.")


def _from_dict(cls: Any, data: Any, what: str = "") -> Any:
    fields = dataclasses.fields(cls)
    required = {f.name for f in fields if f.default is dataclasses.MISSING}
    _check_keys(what or cls.__name__, data, {f.name for f in fields}, required)
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def _feature_to_dict(feature: Feature) -> dict[str, Any]:
    encoding = {k: v for k, v in dataclasses.asdict(feature.encoding).items() if v is not None}
    return {
        "name": feature.name,
        "encoding": {"kind": feature.encoding.kind, **encoding},
        "table": feature.table,
        "max_values": feature.max_values,
    }


def _feature_from_dict(data: Any) -> Feature:
    _check_keys("Feature", data, {"name", "encoding", "table", "max_values"}, {"name", "encoding"})
    if not isinstance(data["encoding"], Mapping):
        raise SchemaError(
            f"Feature {data['name']!r}: expected encoding to be a JSON object such as "
            f'{{"kind": "identity", "size": 24}}, got {data["encoding"]!r}.'
        )
    encoding = dict(data["encoding"])
    kind = encoding.pop("kind", None)
    if kind not in ENCODINGS:
        raise SchemaError(
            f"Feature {data['name']!r}: unknown encoding kind {kind!r}; expected one of "
            f"{sorted(ENCODINGS)}.{suggest(str(kind), ENCODINGS)}"
        )
    what = f"encoding of feature {data['name']!r}"
    rest = {k: v for k, v in data.items() if k != "encoding"}
    return Feature(encoding=_from_dict(ENCODINGS[kind], encoding, what), **rest)
