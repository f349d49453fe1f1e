"""Events that installed packages declare: the modules that they name under the entry point group `morphogen.events`."""

from functools import cache
from importlib import metadata

from .values import line_of

GROUP = "morphogen.events"


@cache
def load_installed_events() -> tuple[str, ...]:
    """Import every module that declares events, once a process; return a line for each that cannot be loaded.

    Whoever turns bodies into events calls this first: a class that was never imported makes its events unknown.
    """
    failed = []
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  foreign code
            why = f"{type(error).__name__}: {line_of(error)}"
            failed.append(f"entry point {point.name} = {point.value} cannot be loaded: {why}")
    return tuple(failed)
