"""How raw feature values become rows of an embedding table. Pure Python."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable
from typing import ClassVar

PADDING_ROW = 0
"""Embedding row of padded positions: masked at lookup and never trained."""
UNKNOWN_ROW = 1
"""Embedding row of values outside the vocabulary."""
FIRST_ROW = 2
"""Embedding row of the first known value."""

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class SchemaError(ValueError):
    """A schema, or something checked against it, is not as it should be."""


def check_name(kind: str, name: object) -> None:
    """Raises unless `name` can be a tensor name."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise SchemaError(
            f"{kind} name {name!r} is not usable: expected lower-case letters, digits and "
            "underscores, starting with a letter (it becomes a tensor name)."
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Categorical values listed in a file (one a line) or inline; others map to one unknown row.

    Attributes:
        dtype: `"string"` or `"int64"`: type of the raw values.
        file: path of the file, relative to the schema's own directory.
        tokens: the values themselves, instead of a file.
        size: number of values; taken from `tokens` when they are inline.
    """

    kind: ClassVar[str] = "vocabulary"
    dtype: str = "string"
    file: str | None = None
    tokens: tuple[str | int, ...] | None = None
    size: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in ("string", "int64"):
            raise SchemaError(f"Vocabulary dtype must be 'string' or 'int64', got {self.dtype!r}.")
        if (self.file is None) == (self.tokens is None):
            raise SchemaError("Vocabulary needs either `file` or `tokens`, and not both.")
        if self.tokens is not None:
            self._check_tokens(tuple(self.tokens))
        elif self.size < 1:
            raise SchemaError(f"Vocabulary {self.file!r} needs `size`, its number of lines.")

    def _check_tokens(self, tokens: tuple[str | int, ...]) -> None:
        if not tokens:
            raise SchemaError("Vocabulary has no tokens; it needs at least one.")
        expected = str if self.dtype == "string" else int
        wrong = [t for t in tokens if not isinstance(t, expected) or isinstance(t, bool)]
        if wrong:
            raise SchemaError(
                f"Vocabulary of dtype {self.dtype!r} holds {wrong[0]!r} "
                f"({type(wrong[0]).__name__}); every token must be {expected.__name__}."
            )
        if any(isinstance(t, str) and ("\n" in t or "\r" in t) for t in tokens):
            raise SchemaError("Vocabulary tokens must not contain line breaks.")
        if len(set(tokens)) != len(tokens):
            repeated = next(t for i, t in enumerate(tokens) if t in tokens[:i])
            raise SchemaError(f"Vocabulary lists {repeated!r} more than once.")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "size", len(tokens))


@dataclasses.dataclass(frozen=True)
class Hashing:
    """Categorical values hashed (FarmHash64 of their text) into `size` buckets."""

    kind: ClassVar[str] = "hash"
    size: int
    dtype: str = "string"

    def __post_init__(self) -> None:
        if self.dtype not in ("string", "int64"):
            raise SchemaError(f"Hashing dtype must be 'string' or 'int64', got {self.dtype!r}.")
        check_positive("Hashing size", self.size)


@dataclasses.dataclass(frozen=True)
class Identity:
    """Integers in `[0, size)`; anything outside maps to the unknown row."""

    kind: ClassVar[str] = "identity"
    size: int
    dtype: ClassVar[str] = "int64"

    def __post_init__(self) -> None:
        check_positive("Identity size", self.size)


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Finite numbers cut at increasing `boundaries`; a value on a boundary belongs to the right."""

    kind: ClassVar[str] = "buckets"
    boundaries: tuple[float, ...]
    dtype: ClassVar[str] = "float32"

    def __post_init__(self) -> None:
        boundaries = tuple(float(b) for b in self.boundaries)
        finite = all(math.isfinite(boundary) for boundary in boundaries)
        if (
            not boundaries
            or not finite
            or any(a >= b for a, b in zip(boundaries, boundaries[1:], strict=False))
        ):
            raise SchemaError(
                f"Buckets boundaries must be one or more strictly increasing finite numbers, got "
                f"{boundaries}."
            )
        object.__setattr__(self, "boundaries", boundaries)

    @property
    def size(self) -> int:
        """Number of buckets."""
        return len(self.boundaries) + 1


Encoding = Vocabulary | Hashing | Identity | Buckets
ENCODINGS: dict[str, type[Encoding]] = {e.kind: e for e in (Vocabulary, Hashing, Identity, Buckets)}


def check_positive(what: str, value: object) -> None:
    """Raises unless `value` is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SchemaError(f"{what} must be a positive integer, got {value!r}.")
