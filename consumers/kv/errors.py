"""What workers and sessions refuse.

MorphogenError
└── ContinuityError      something about a KV state, a worker or a session: what, where, what to do
    ├── SessionError     a session cannot be begun, resumed or carried on
    │   └── SessionBusy  another process, or another turn, has it
    ├── HandoffFailed    the other worker did not take a session, which stays where it was
    └── NoRoomLeft       no sequence of the context, or no budget of a tier, is free
"""

from morphogen.schemas import MorphogenError


class ContinuityError(MorphogenError):
    """A KV state, a worker or a session is not as it would have to be."""


class SessionError(ContinuityError):
    """A session cannot be begun, resumed or carried on."""


class SessionBusy(SessionError):
    """Another process, or another turn, has the session."""


class HandoffFailed(ContinuityError):
    """The other worker did not take a session; it stays where it was."""


class NoRoomLeft(ContinuityError):
    """No sequence of the context, or no budget of a tier, is free."""
