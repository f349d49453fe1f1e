"""The backend that asks a person: it never answers, so the loop stops until `loop.answered` is in the log."""

import msgspec

from .backend import Query, Suspend


class SuspendOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `suspend`."""

    reason: str = "waiting for an answer"


class SuspendBackend:
    """Suspends on every query."""

    name = "suspend"

    def __init__(self, options: SuspendOptions | None = None) -> None:
        self._reason = (options or SuspendOptions()).reason

    def ask(self, query: Query) -> Suspend:
        """Return the reason to wait."""
        return Suspend(self._reason)
