"""The face of a room whose parts are heavy: a name is imported from where it lives when somebody first asks for it."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NoReturn

from .errors import MorphogenError


def found_or_told(module: str, name: str) -> Any:
    """Return what a module holds; where an extra lacks, what says so when it is called: its name can still be shown."""
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        if not isinstance(error, MorphogenError):
            raise
        told, kind = str(error), type(error)

    def lacking(*_: object, **__: object) -> NoReturn:
        raise kind(told)

    lacking.__name__ = lacking.__qualname__ = name
    lacking.__doc__ = f"Not to be had here: {told}."
    return lacking


def lazily(package: str, homes: Mapping[str, str], *, torch: str | None = None) -> Callable[[str], Any]:
    """Return the `__getattr__` (PEP 562) of a package; `homes` says in which of its modules each name lives.

    Where `torch` names an extra and torch is not installed, the package's own `errors.MissingExtra` says so in one line.
    """

    def found(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(f".{home}", package), name)
        except ModuleNotFoundError as error:
            if torch is None or error.name != "torch":
                raise
            missing = import_module(".errors", package).MissingExtra
            raise missing(f"{name} needs torch: pip install 'morphogen[{torch}]'") from error
        setattr(sys.modules[package], name, value)
        return value

    return found
