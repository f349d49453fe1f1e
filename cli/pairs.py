"""Values that are given by name on a command line: `column=price`, `rows=5`, `names=["a", "b"]`."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import typer


def pairs(
    given: Sequence[str] | None, option: str, refused: Callable[[str], Exception] = typer.BadParameter
) -> dict[str, Any]:
    """Return name=value options as a dict; values are JSON where they can be read as such, else text.

    Raises what `refused` makes of a line for one without a name or a value, and for a name that is given twice.
    """
    found: dict[str, Any] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise refused(f"{option} takes name=value, got {pair!r}")
        if name.strip() in found:
            raise refused(f"{option} {name.strip()} is given twice")
        try:
            found[name.strip()] = json.loads(value, parse_constant=_no_json)
        except (ValueError, RecursionError):  # RecursionError: brackets in brackets, thousands deep
            found[name.strip()] = value
    return found


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is text here")
