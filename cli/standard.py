"""The standard streams where a command cannot do without them: Python has None for one that is closed."""

import sys
from typing import TextIO

from morphogen.schemas import MorphogenError


def needed_input() -> TextIO:
    """Return standard input. Raises MorphogenError where it is closed."""
    return _needed(sys.stdin, "input")


def needed_output() -> TextIO:
    """Return standard output. Raises MorphogenError where it is closed."""
    return _needed(sys.stdout, "output")


def _needed(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:
        raise MorphogenError(f"standard {name} is closed: this command needs it open")
    return stream
