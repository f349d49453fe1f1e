"""What can go wrong with a foreign query.

MorphogenError
└── SqlError               the text is wrong, or the tables cannot answer it
    ├── SqlRefused         it is not one statement that only reads
    ├── SqlTooLong         it ran out of its time
    ├── SqlTooLarge        it needs more memory, or its answer has more bytes, than allowed
    ├── SqlCancelled       its asker went away
    ├── SqlBusy            too many others are being answered
    ├── PositionNotReached the tables do not yet hold what the query waits for
    └── SnapshotFailed     a copy for outside tools could not be written
"""

from morphogen.schemas.errors import MorphogenError


class SqlError(MorphogenError):
    """Raised when a query cannot be answered: one line, and in `detail` the place in the text where DuckDB knows it."""

    def __init__(self, line: str, detail: str = "") -> None:
        self.line = line
        self.detail = detail
        super().__init__(line)


class SqlRefused(SqlError):
    """Raised for anything but a single statement that reads the tables, before or while it runs."""


class SqlTooLong(SqlError, TimeoutError):
    """Raised when a query was stopped at its time limit."""


class SqlTooLarge(SqlError):
    """Raised when a query needs more memory or temporary disk, or answers with more bytes, than it may."""


class SqlCancelled(SqlError):
    """Raised inside the service when its asker wants no more."""


class SqlBusy(SqlError):
    """Raised when the queue of the service is full."""


class PositionNotReached(SqlError, TimeoutError):
    """Raised when the tables did not come as far as asked in time; the text names both positions."""


class SnapshotFailed(SqlError):
    """Raised when a snapshot cannot be written or does not hold what it should; nothing of it is left behind."""


KINDS: dict[str, type[SqlError]] = {
    kind.__name__: kind
    for kind in (
        SqlError,
        SqlRefused,
        SqlTooLong,
        SqlTooLarge,
        SqlCancelled,
        SqlBusy,
        PositionNotReached,
        SnapshotFailed,
    )
}
"""The errors by name, as they travel from the service to the one who asked."""
