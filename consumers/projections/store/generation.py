"""A build of a projection, what one commit writes for some of them, and how each stands."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..projection import Projection
from . import layout


@dataclass(eq=False)
class Generation:
    """One build of a projection: where its tables are and how far it has folded."""

    id: int
    projection: Projection
    signature: str  # of the code that makes its rows, which the projection may not be any more
    number: int
    seq: int
    live: bool
    state: Any = None
    error: str | None = None
    failed_before: str | None = None  # the error that the file still holds: it is tried again, and has not moved yet
    outdated: bool = False  # live, but its code is gone: it answers, and does not go on
    hidden: bool = False  # called for by the log no more: it goes on, and nobody sees it

    @property
    def schema(self) -> str:
        """The schema that holds its tables."""
        return layout.schema_of(self.projection.name, self.number)


@dataclass
class Folded:
    """What one commit writes: rows by generation and table, and the position that they reach."""

    first: int
    last: int
    rows: list[tuple[Generation, str, pa.Table]]
    generations: list[Generation]
    states: dict[Generation, Any] = field(default_factory=dict)
    encoded: dict[Generation, bytes] = field(default_factory=dict)
    """The states as the file keeps them, but for those in parts."""
    failed: dict[Generation, str] = field(default_factory=dict)
    events: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Status:
    """How one projection stands."""

    projection: str
    version: int
    generation: int
    seq: int
    live: bool
    error: str | None
