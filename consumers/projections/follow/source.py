"""The log of a broker as a source to fold: the archive first, then the live log."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from morphogen.bus.bodies import whole
from morphogen.bus.past import extent, past

from ..fold.batch import Message

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

Progress = Callable[[int, int], None]
"""Called with (sequences done, sequences to do) after each commit."""


class Source(Protocol):
    """The past and the present of one log."""

    def read(
        self, after: int, upto: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Sequence[Message], None]:
        """Yield messages with after < seq <= upto, in order; with `follow`, go on with what comes later.

        Bodies that lie in blobs are in them; one whose blob is gone keeps its reference.
        """
        ...

    async def end(self) -> int:
        """Return the last sequence of the log, 0 where it is empty."""
        ...


class LogSource:
    """Archive and log of the broker that `conn` is connected to."""

    def __init__(self, conn: "Connection", settings: "Settings") -> None:
        self._conn = conn
        self._settings = settings

    def read(
        self, after: int, upto: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Sequence[Message], None]:
        """Yield messages with after < seq <= upto, in order; with `follow`, go on with what comes later.

        What the log has lost amid the rest is warned of and passed over: what is left must be answered for.
        """
        messages = past(self._conn, self._settings, after=after, upto=upto, follow=follow, holes=True)
        return whole(self._conn, messages, follow=follow)

    async def end(self) -> int:
        """Return the last sequence of archive and log."""
        return (await extent(self._conn, self._settings)).last
