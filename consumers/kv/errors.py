"""What workers and sessions refuse.

MorphogenError
└── ContinuityError      something about a KV state, a worker or a session: what, where, what to do
    ├── SessionError     a session cannot be begun, resumed or carried on
    │   ├── SessionBusy  another process, or another turn, has it
    │   ├── SessionLost  its journal is damaged, or was taken away
    │   └── Elsewhere    it was given to another worker, or another name
    ├── HandoffFailed    the other worker did not take a session, which stays where it was
    │   └── HandoffUnsure  it may have: nobody speaks with the session before that one says so
    └── NoRoomLeft       no sequence of the context, or no budget of a tier, is free
"""

from morphogen.schemas import MorphogenError


class ContinuityError(MorphogenError):
    """A KV state, a worker or a session is not as it would have to be."""


class SessionError(ContinuityError):
    """A session cannot be begun, resumed or carried on."""


class SessionBusy(SessionError):
    """Another process, or another turn, has the session."""


class SessionLost(SessionError):
    """The session's journal is damaged, or was taken away: restore it, or drop the session."""


class Elsewhere(SessionError):
    """The session went to `worker`, as `name`."""

    def __init__(self, session: str, worker: str, name: str) -> None:
        self.worker, self.name = worker, name
        renamed = "" if name == session else f" as {name!r}"
        super().__init__(
            f"session {session!r} went to worker {worker}{renamed}: ask there, or begin one of another name"
        )


class HandoffFailed(ContinuityError):
    """The other worker did not take a session; it stays where it was."""


class HandoffUnsure(HandoffFailed):
    """The other worker took a session up and fell silent: it is here for nobody until that one says whether it has it."""


class NoRoomLeft(ContinuityError):
    """No sequence of the context, or no budget of a tier, is free."""
