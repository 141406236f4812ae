"""Arguments that come from configurations, held against the types their functions ask for."""

from __future__ import annotations

import collections.abc
import inspect
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def check_types(owner: str, given: Mapping[str, Any], *functions: Callable[..., Any]) -> None:
    """Checks arguments by the annotations of their parameters.

    Args:
        owner: whose arguments they are, for the message.
        given: values by parameter; parameters that no function has are left to others.
        *functions: who takes them; of a parameter that several have, the last one counts.

    Raises:
        ValueError: names the parameter, what was expected and what came.

    Example:
        >>> def build(units: int, rate: float = 0.0): ...
        >>> check_types("Model 'dfn'", {"units": 8, "rate": 1}, build)
        >>> check_types("Model 'dfn'", {"units": "two"}, build)
        Traceback (most recent call last):
        ValueError: Model 'dfn': units must be int, got 'two'.
    """
    types: dict[str, Any] = {}
    for function in functions:
        types |= get_type_hints(function)
    for name, value in given.items():
        if name in types and not _fits(value, types[name]):
            expected = re.sub(r"\w+\.", "", inspect.formatannotation(types[name]))
            raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; truth values are no numbers, texts no sequences."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is collections.abc.Sequence:
        is_list = isinstance(value, collections.abc.Sequence) and not isinstance(value, str)
        return is_list and all(_fits(element, arguments[0]) for element in value)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
