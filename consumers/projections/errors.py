"""What can go wrong between the log and its tables.

MorphogenError
└── ProjectionError
    ├── DeclarationError    a projection class is declared wrongly, or two claim one name
    ├── FoldError           a projection's own code failed on a batch
    ├── NoInitialState      or before the first one
    └── StoreError
        ├── StoreLocked     another process owns the store
        ├── StoreDamaged    the file is not a DuckDB store of ours, or is cut short
        ├── StoreFull       the disk, or the memory, has no room for the next commit
        └── PositionBeyondLog  the store has seen more than the log holds
"""

from morphogen.schemas.errors import MorphogenError
from morphogen.schemas.values import sound


class ProjectionError(MorphogenError):
    """Raised by projections and their store; catch it to catch all of them."""


class DeclarationError(ProjectionError, ValueError):
    """Raised when a projection is declared wrongly; the text says which and how to mend it."""


class FoldError(ProjectionError):
    """Raised when a projection's own code fails; carries its `projection` and the range of `first`..`last`."""

    def __init__(self, projection: str, first: int, last: int, error: BaseException) -> None:
        self.projection = projection
        self.first = first
        self.last = last
        super().__init__(
            f"projection {projection!r} failed on messages {first}..{last}: "
            f"{type(error).__name__}: {' '.join(sound(error).split())}; "
            f"mend it, then run `morphogen rebuild {projection}`"
        )


class NoInitialState(ProjectionError):
    """Raised when a projection's own code fails before its first message."""

    def __init__(self, projection: str, error: BaseException) -> None:
        super().__init__(
            f"projection {projection!r} has no initial state: {type(error).__name__}: {' '.join(sound(error).split())}; "
            f"mend it, then run `morphogen rebuild {projection}`"
        )


class StoreError(ProjectionError):
    """Raised when the DuckDB file cannot be used."""


class StoreLocked(StoreError):
    """Raised when another process owns the store: ask that process, through the SQL service."""


class StoreDamaged(StoreError):
    """Raised when the file cannot be read as a store; everything in it can be rebuilt from the log."""


class StoreFull(StoreError):
    """Raised when a commit found no room on the disk or in memory; nothing of it is stored, and it may be tried again."""


class PositionBeyondLog(StoreError):
    """Raised when the store has folded messages that the log does not hold: the log was restored from an older copy."""
