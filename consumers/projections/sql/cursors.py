"""Cursors that are ready for the next query: their limits are set, which costs as much as a small query does."""

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from .sandbox import Limits

if TYPE_CHECKING:
    from ..store.store import Store

_KEPT = 8


class Cursors:
    """Keeps cursors of a store between queries, by the limits that are set on them. Any thread may use it."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._kept: dict[tuple[float, int], list[Any]] = {}
        self._count = 0
        self._guard = threading.Lock()

    def take(self, limits: Limits) -> tuple[Any, bool]:
        """Return a cursor that nobody else uses, and whether these limits are set on it."""
        with self._guard:
            kept = self._kept.get((limits.seconds, limits.memory))
            if kept:
                self._count -= 1
                return kept.pop(), True
        return self._store.cursor(), False

    def give(self, cursor: Any, limits: Limits) -> None:
        """Take a cursor back on which these limits are set and no transaction is open."""
        with self._guard:
            if self._count < _KEPT:
                self._kept.setdefault((limits.seconds, limits.memory), []).append(cursor)
                self._count += 1
                return
        with contextlib.suppress(Exception):
            cursor.close()

    def clear(self) -> None:
        """Close them all; those in use are not affected."""
        with self._guard:
            kept = [cursor for cursors in self._kept.values() for cursor in cursors]
            self._kept, self._count = {}, 0
        for cursor in kept:
            with contextlib.suppress(Exception):
                cursor.close()
