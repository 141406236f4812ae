"""The parts of a request: features, feedback histories, tasks, tensors. Pure Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfrec_feedback.encodings import (
    ENCODINGS,
    FIRST_ROW,
    Encoding,
    SchemaError,
    check_name,
    check_positive,
)


@dataclasses.dataclass(frozen=True)
class Feature:
    """One input column and how its raw values become embedding rows.

    Attributes:
        name: tensor name on the wire.
        encoding: `Vocabulary`, `Hashing`, `Identity` or `Buckets`.
        table: name of the embedding table; features that name the same table share it and must
            have equal encodings. Default: the feature's own name.
        max_values: how many values one entry may hold. Above 1 the tensor has one more axis of
            this width and a companion `<name>_count`; the embedding is the mean of the values.
    """

    name: str
    encoding: Encoding
    table: str = ""
    max_values: int = 1

    def __post_init__(self) -> None:
        check_name("Feature", self.name)
        if not isinstance(self.encoding, Encoding):
            raise SchemaError(
                f"Feature {self.name!r}: encoding must be one of "
                f"{[e.__name__ for e in ENCODINGS.values()]}, got {self.encoding!r}."
            )
        check_positive(f"Feature {self.name!r}: max_values", self.max_values)
        if not self.table:
            object.__setattr__(self, "table", self.name)
        check_name("Table", self.table)

    @property
    def dtype(self) -> str:
        """Raw value type: `"int64"`, `"string"` or `"float32"`."""
        return self.encoding.dtype

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table: padding, unknown, then the known values."""
        return self.encoding.size + FIRST_ROW


@dataclasses.dataclass(frozen=True)
class FeedbackSequence:
    """History of one kind of feedback: the user's earlier items, oldest first, padded right.

    Attributes:
        name: `click`, `unclick` (shown, not clicked), `like`, `dislike`, ...
        features: names of the candidate features every event repeats; on the wire they are called
            `<name>_<feature>` and share the candidate feature's embedding table.
        max_length: T, the most recent events that are kept.
        num_samples: K, events drawn for training from all the user's earlier ones of this kind,
            however long ago; 0 draws none. Never a serving input.
        num_sessions: K, sessions told apart; 0: the history has none. Otherwise every event has
            the number of its session, counted back from that of the most recent event (0); events
            of older sessions than can be told apart all carry K.

    Example:
        >>> FeedbackSequence("click", ("item_id",), max_length=30, num_samples=4).samples.name
        'click_sample'
        >>> FeedbackSequence("click", ("item_id",), num_sessions=5).session
        'click_session'
    """

    name: str
    features: tuple[str, ...]
    max_length: int = 30
    num_samples: int = 0
    num_sessions: int = 0

    def __post_init__(self) -> None:
        check_name("FeedbackSequence", self.name)
        object.__setattr__(self, "features", tuple(self.features))
        if not self.features:
            raise SchemaError(f"FeedbackSequence {self.name!r} lists no candidate features.")
        check_positive(f"FeedbackSequence {self.name!r}: max_length", self.max_length)
        for field in ("num_samples", "num_sessions"):
            count = getattr(self, field)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise SchemaError(
                    f"FeedbackSequence {self.name!r}: {field} must be an integer, 0 or more, got "
                    f"{count!r}."
                )

    @property
    def length(self) -> str:
        """Name of the tensor of true lengths."""
        return f"{self.name}_length"

    @property
    def session(self) -> str:
        """Name of the tensor of session numbers.

        Raises:
            SchemaError: when the history has no sessions.
        """
        if self.num_sessions == 0:
            raise SchemaError(
                f"FeedbackSequence {self.name!r} has no sessions: give it `num_sessions`, the "
                "most recent sessions that are told apart."
            )
        return f"{self.name}_session"

    @property
    def samples(self) -> FeedbackSequence:
        """The drawn events, as a sequence `<name>_sample` of at most `num_samples` events.

        Raises:
            SchemaError: when none are drawn.
        """
        if self.num_samples == 0:
            raise SchemaError(
                f"FeedbackSequence {self.name!r} has no samples: give it `num_samples`, the "
                "events drawn from the user's whole earlier log."
            )
        return FeedbackSequence(f"{self.name}_sample", self.features, self.num_samples)


@dataclasses.dataclass(frozen=True)
class Task:
    """A binary prediction: 1 where any `positive` flag is set and no `negative` one.

    Flags are the feedbacks of an exposure (`click`, `like`, `dislike`), stored in the records as
    `label_<flag>`.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("Task", self.name)
        object.__setattr__(self, "positive", tuple(self.positive))
        object.__setattr__(self, "negative", tuple(self.negative))
        if not self.positive:
            raise SchemaError(f"Task {self.name!r} lists no positive feedback.")
        for flag in (*self.positive, *self.negative):
            check_name(f"Task {self.name!r}: feedback", flag)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One tensor of a request batch.

    Attributes:
        name: tensor name.
        dtype: `"int64"`, `"string"` or `"float32"`.
        axes: `"R"` requests, `"N"` candidates, `"T"` history events; an integer is a fixed width
            (the values of a multi-valued feature).
        role: `context`, `candidate` or `history`; lengths and counts take the role of what they
            count.
        feature: the feature whose values the tensor holds; None for lengths, counts and session
            numbers.
        sequence: name of the history (or its samples) the tensor belongs to, or None.
    """

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    role: str
    feature: Feature | None = None
    sequence: str | None = None


def value_specs(
    feature: Feature,
    wire_name: str,
    axes: tuple[str | int, ...],
    role: str,
    sequence: str | None = None,
) -> list[InputSpec]:
    """Returns the tensors that hold one feature: its values, and counts if multi-valued."""
    if feature.max_values == 1:
        return [InputSpec(wire_name, feature.dtype, axes, role, feature, sequence)]
    wide = (*axes, feature.max_values)
    return [
        InputSpec(wire_name, feature.dtype, wide, role, feature, sequence),
        InputSpec(f"{wire_name}_count", "int64", axes, role, None, sequence),
    ]


def sequence_specs(sequence: FeedbackSequence, candidate: Mapping[str, Feature]) -> list[InputSpec]:
    """Returns the tensors of one sequence: its features by name, sessions if any, lengths."""
    specs: list[InputSpec] = []
    for name in sequence.features:
        wire = f"{sequence.name}_{name}"
        specs += value_specs(candidate[name], wire, ("R", "T"), "history", sequence.name)
    if sequence.num_sessions:
        specs.append(
            InputSpec(sequence.session, "int64", ("R", "T"), "history", sequence=sequence.name)
        )
    specs.append(InputSpec(sequence.length, "int64", ("R",), "history", sequence=sequence.name))
    return specs
