"""Morphogen: an event-sourced nervous system for training jobs.

    import morphogen

    run = morphogen.record("digits", config={"lr": 0.1})
    run.log(loss=0.5, step=1)
    morphogen.query("SELECT step, value FROM metrics WHERE name = 'loss'").pandas()

This page is names only; each is imported from its room when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphogen.bus import Bus
    from morphogen.bus.settings import Settings
    from morphogen.consumers.adaptation import grow
    from morphogen.consumers.kv import session
    from morphogen.consumers.projections import Projection
    from morphogen.consumers.projections.sql.formats import Result
    from morphogen.consumers.projections.sql.query import query
    from morphogen.kernels.slots import adapt, fuse
    from morphogen.producers import Run, record
    from morphogen.producers.executions import execution
    from morphogen.schemas import Event, MorphogenError, Names, Vector, upcaster

_HOMES = {
    # Record
    "record": "morphogen.producers",
    "Run": "morphogen.producers",
    # Ask
    "query": "morphogen.consumers.projections.sql.query",
    "Result": "morphogen.consumers.projections.sql.formats",
    "Projection": "morphogen.consumers.projections",
    # Grow
    "adapt": "morphogen.kernels.slots",
    "grow": "morphogen.consumers.adaptation",
    "fuse": "morphogen.kernels.slots",
    # Converse
    "session": "morphogen.consumers.kv",
    # Crystallize
    "execution": "morphogen.producers.executions",
    # The log
    "Bus": "morphogen.bus",
    "Settings": "morphogen.bus.settings",
    # Events of one's own
    "Event": "morphogen.schemas",
    "Names": "morphogen.schemas",
    "Vector": "morphogen.schemas",
    "upcaster": "morphogen.schemas",
    # Errors
    "MorphogenError": "morphogen.schemas",
}

__all__ = [
    "Bus",
    "Event",
    "MorphogenError",
    "Names",
    "Projection",
    "Result",
    "Run",
    "Settings",
    "Vector",
    "__version__",
    "adapt",
    "execution",
    "fuse",
    "grow",
    "query",
    "record",
    "session",
    "upcaster",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("morphogen")
    if name in _HOMES:
        from morphogen.schemas.faces import found_or_told

        return found_or_told(_HOMES[name], name)
    raise AttributeError(f"module 'morphogen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
