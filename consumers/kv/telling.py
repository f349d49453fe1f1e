"""Events of which there is more to say than a line: a KV state that was not taken, a session that was saved."""

from morphogen.kernels.kv import KvMismatch
from morphogen.schemas.kv import KvRef, KvRejected, SessionSaved

from .conversation import Kept
from .journal import NAME, Journal

_LONGEST = 1000  # characters of a reason


def rejection(
    state: str,
    worker: str,
    error: Exception | str,
    *,
    source: str | None = None,
    handoff: str | None = None,
    session: str | None = None,
) -> KvRejected:
    """Return the event of a state that `worker` did not take: why, and what differs in its fingerprint if that is why."""
    mismatch = error if isinstance(error, KvMismatch) else None
    return KvRejected(
        state=state,
        worker=worker,
        reason=" ".join(str(error).split())[:_LONGEST],
        source=source,
        handoff=handoff,
        session=session,
        field=mismatch.field if mismatch else None,
        expected=mismatch.expected if mismatch else None,
        actual=mismatch.actual if mismatch else None,
    )


def saving(session: str, worker: str | None, journal: Journal, kept: Kept | None) -> SessionSaved:
    """Return the event of a session whose journal, and KV state if there is one, are on this machine's disk."""
    conversation, folder = journal.conversation, journal.folder
    ref = None
    if kept is not None:
        ref = KvRef(transport="disk", place=str(folder / kept.file), size=kept.size)
    return SessionSaved(
        session=session,
        revision=conversation.revision,
        turns=conversation.turns,
        tokens=len(conversation.tokens),
        journal=KvRef(transport="disk", place=str(folder / NAME), size=journal.size),
        ref=ref,
        state=kept.state if kept else None,
        root=conversation.root,
        worker=worker,
        pending=conversation.reply is not None,
    )
