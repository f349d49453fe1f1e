"""The backend that asks a person: it never answers, so the loop stops until `loop.answered` is in the log."""

import msgspec

from .backend import Query, Suspend
from .budget import Price


class SuspendOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `suspend`."""

    reason: str = "waiting for an answer"


class SuspendBackend:
    """Suspends on every query."""

    name = "suspend"

    def __init__(self, options: SuspendOptions | None = None) -> None:
        self._reason = (options or SuspendOptions()).reason

    def price(self, query: Query) -> Price:
        """Return that a person's answer costs nothing."""
        return Price(0, 0)

    def ask(self, query: Query) -> Suspend:
        """Return the reason to wait."""
        return Suspend(self._reason)
