"""What workers and their callers say to each other: plain data, msgpack, one request or a stream of answers."""

from typing import Any, TypeVar

import msgspec

from morphogen.kernels.kv.transport import Place
from morphogen.schemas.kv import Fingerprint, KvRef, Scalar

from .errors import ContinuityError
from .sampling import Sampling

_T = TypeVar("_T")

INFO, GENERATE, SAY, CLAIM = "info", "generate", "say", "claim"  # requests
OFFER, STANDS, HAS = "offer", "stands", "has"  # requests of a handoff


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session that a worker has."""

    session: str
    tokens: int
    turns: int
    pending: bool
    tier: str | None  # where its KV state is; None: nowhere, it would be computed again
    running: bool = False


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: what it runs, where, and what it holds."""

    worker: str
    pid: int
    model: str
    fingerprint: Fingerprint
    place: Place
    sequences: int
    context: int  # tokens
    sessions: list[SessionInfo]
    used: dict[str, int] = msgspec.field(default_factory=dict)  # bytes by tier
    budgets: dict[str, int] = msgspec.field(default_factory=dict)
    costs: dict[str, Any] = msgspec.field(default_factory=dict)


class Say(msgspec.Struct, frozen=True, kw_only=True):
    """Append a message to a session, which begins with it if need be; `compute` reads it at once."""

    session: str
    text: str
    role: str = "user"
    compute: bool = False


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The session after a message."""

    session: str
    tokens: int
    turns: int


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Say something, if given, and have a reply; or follow one that is being made, from character `since` on."""

    session: str
    say: str | None = None
    role: str = "user"
    max_tokens: int = 256
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    resume: bool = False  # begin nothing: follow, or carry on, what is pending
    since: int = 0


class Has(msgspec.Struct, frozen=True, kw_only=True):
    """Ask whether a session came by a handoff, even if it went on since: one that merely has its name is another one."""

    session: str
    handoff: str


class Had(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it did."""

    here: bool


class Stands(msgspec.Struct, frozen=True, kw_only=True):
    """Ask whether an offer stands, to settle in now: a yes is the last word, after which it cannot be called off."""

    attempt: str


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it does."""

    stands: bool


class Bit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a reply, from character `at` on; the last one says how it ended, or whither the session went."""

    at: int
    text: str = ""
    finish: str | None = None
    tokens: int | None = None
    moved: str | None = None  # the worker that goes on
    session: str | None = None  # what it is called there


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A session for another worker: where its KV state is, and its journal."""

    handoff: str
    attempt: str  # of this handoff: each offer has its own
    source: str
    session: str
    state: str
    ref: KvRef | None  # None: nothing of it was computed yet
    tokens: int
    root: str
    journal: bytes | None = None
    journal_ref: KvRef | None = None  # where it is too long for a message
    cause: str | None = None  # the id of the event `kv.offered`


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of an offer: `accepted`, and then `imported` or `rejected`."""

    what: str
    reason: str = ""
    final: bool = True  # of a rejection: the same offer would be rejected again
    field: str | None = None
    expected: Scalar = None
    actual: Scalar = None
    restored: int = 0
    recomputed: int = 0
    duration_ns: int | None = None
    first_token_ns: int | None = None


def pack(message: msgspec.Struct) -> bytes:
    """Return a message's bytes. Raises ContinuityError for one that cannot be sent, such as half a character."""
    try:
        return msgspec.msgpack.encode(message)
    except (TypeError, OverflowError, ValueError) as error:
        raise ContinuityError(f"this cannot be sent: {error}") from error


def unpack(data: bytes, kind: type[_T]) -> _T:
    """Read a message. Raises ContinuityError in one line where it is none."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, UnicodeDecodeError) as error:
        name = kind.__name__.lower()
        raise ContinuityError(f"not a message of kind {name}: {' '.join(str(error).split())[:200]}") from error
