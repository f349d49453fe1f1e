"""What is printed: the words of others never command the terminal that shows them.

A name, a reason or an answer may come from any producer, engine or package. On a terminal the characters in it that move
the cursor, change colours or turn the order of letters are shown as escapes; into files and pipes they go as they are.
"""

import re
import sys

import typer
from rich.console import Console
from rich.markup import escape

WIDE = 10_000  # columns where nobody's terminal wraps

_COMMANDS = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BREAKS = re.compile(r"[\t\n\r\u2028\u2029]")


def echo(message: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a line, or several."""
    stream = sys.stderr if err else sys.stdout
    text = str(message)
    typer.echo(harmless(text) if stream is not None and stream.isatty() else text, err=err, nl=nl)


def console() -> Console:
    """Return where tables go: a terminal wraps them, into a file or a pipe they go whole."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDE)


def harmless(text: str) -> str:
    """Return text whose lines stay, and in which what commands a terminal is written as an escape."""
    return _COMMANDS.sub(_escaped, text)


def word(value: object) -> str:
    """Return a value as a part of a line, which it does not break."""
    return _BREAKS.sub(_escaped, harmless(str(value)))


def cell(value: object) -> str:
    """Return a value as the cell of a table; nothing in it is markup."""
    return escape(harmless(str(value)))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
