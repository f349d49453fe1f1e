"""The past as something to fold from, with or without a broker, and somebody looking on."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from morphogen.bus.bodies import whole
from morphogen.bus.past import extent, past
from morphogen.bus.reader import Message
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.follow.conveyor import BATCH_BYTES

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

FOLD_BYTES = BATCH_BYTES  # of messages in one commit


class PastSource:
    """Archive and log as a `Source` of projections; without a connection, the archive alone.

    `observe` is shown every list of messages as the past has them. `holes` lets what the log has lost be passed over.
    """

    def __init__(
        self,
        conn: "Connection | None",
        settings: Settings,
        *,
        epoch: str | None = None,
        observe: Callable[[list[Message]], None] | None = None,
        holes: bool = False,
    ) -> None:
        self._conn = conn
        self._settings = settings
        self._epoch = epoch
        self._observe = observe
        self._holes = holes

    async def read(
        self, after: int, upto: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[list[Message], None]:
        """Yield messages with after < seq <= upto, in order, with the bodies that lie in blobs where there is a broker."""
        async with contextlib.aclosing(
            whole(self._conn, self._observed(after, upto, follow), follow=follow)
        ) as batches:
            async for batch in batches:
                yield batch

    async def end(self) -> int:
        """Return the last sequence of archive and log."""
        return (await extent(self._conn, self._settings, self._epoch)).last

    async def _observed(self, after: int, upto: int | None, follow: bool) -> AsyncGenerator[list[Message], None]:
        batches = past(
            self._conn, self._settings, after=after, upto=upto, follow=follow, epoch=self._epoch, holes=self._holes
        )
        async with contextlib.aclosing(batches):
            async for batch in batches:
                if self._observe is not None:
                    self._observe(batch)
                yield batch
