"""From the log to tables, and SQL over them.

A projection is a pure fold of events into rows; the store keeps rows and position in one DuckDB transaction; the
projector follows the log. It does not know how events come into the log, and it never changes the log.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .errors import (
        DeclarationError,
        FoldError,
        PositionBeyondLog,
        ProjectionError,
        StoreDamaged,
        StoreError,
        StoreFull,
        StoreLocked,
    )
    from .fold.arrays import nullable, strings
    from .fold.batch import Batch, Entry, Message
    from .fold.rows import Columns
    from .fold.selection import Selection
    from .projection import Projection, Rows
    from .registry import discover, register, unregister
    from .store.generation import Generation, Status
    from .store.store import Store

_HOMES = {
    "DeclarationError": "errors", "FoldError": "errors", "PositionBeyondLog": "errors", "ProjectionError": "errors",
    "StoreDamaged": "errors", "StoreError": "errors", "StoreFull": "errors", "StoreLocked": "errors",
    "nullable": "fold.arrays", "strings": "fold.arrays",
    "Batch": "fold.batch", "Entry": "fold.batch", "Message": "fold.batch",
    "Columns": "fold.rows",
    "Selection": "fold.selection",
    "Projection": "projection", "Rows": "projection",
    "discover": "registry", "register": "registry", "unregister": "registry",
    "Generation": "store.generation", "Status": "store.generation",
    "Store": "store.store",
}  # fmt: skip

__all__ = [
    "Batch",
    "Columns",
    "DeclarationError",
    "Entry",
    "FoldError",
    "Generation",
    "Message",
    "PositionBeyondLog",
    "Projection",
    "ProjectionError",
    "Rows",
    "Selection",
    "Status",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "discover",
    "nullable",
    "register",
    "strings",
    "unregister",
]

__getattr__ = lazily(__name__, _HOMES)
