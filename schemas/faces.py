"""The face of a room whose parts are heavy: a name is imported from where it lives when somebody first asks for it."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


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
