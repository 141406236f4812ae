"""What every stack of dense layers asks of its widths."""

from __future__ import annotations

from collections.abc import Sequence


def check_widths(name: str, widths: Sequence[int], example: tuple[int, ...]) -> None:
    """Checks the widths of dense layers that follow each other.

    Args:
        name: of the argument.
        widths: its value.
        example: what the message shows as a right one.

    Raises:
        ValueError: without widths, or for one below 1: a layer of no units ends the process in
            some builds of TensorFlow.
    """
    if not widths or min(widths) < 1:
        raise ValueError(
            f"{name} needs at least one width, none below 1, for example {example}; got "
            f"{tuple(widths)}."
        )
