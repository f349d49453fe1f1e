"""What every way of moving the bytes of a KV state offers: room to write into, a view to read, and an end.

Bytes are written once, straight into where they will lie, and are read from there: no copy in between. A `KvRef` is as
good as its lease: once that has ended, by release, by time or with its holder, nothing is opened through it any more.
"""

from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

import msgspec

from morphogen.schemas.kv import KvRef

Released = Literal["freed", "held", "already"]
"""What a release came to: the bytes are gone; others still hold them; it had ended before, and nothing was done."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What the writer tells of its bytes when it commits them; it goes into the `KvRef` as it is."""

    checksum: str | None = None
    size: int | None = None  # bytes used, where that is less than was reserved
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    def used(self, reserved: int) -> int:
        """Return how many of the reserved bytes are to be kept. Raises ValueError where they cannot have been written."""
        used = reserved if self.size is None else self.size
        if not 0 < used <= reserved:
            raise ValueError(f"{used} bytes cannot have been written into {reserved}")
        return used


class Reservation(Protocol):
    """Room for the bytes of one KV state. Nobody sees it before `commit`; leaving the `with` block uncommitted aborts."""

    @property
    def size(self) -> int:
        """The bytes reserved."""

    @property
    def buffer(self) -> memoryview:
        """The room itself, writable, until `commit` or `abort`. Every byte of it is backed: a write cannot fail."""

    def commit(self, meta: Meta = ..., /) -> KvRef:
        """Publish what was written; the buffer must not be touched afterwards. Raises LeaseEnded where it was reaped."""

    def abort(self) -> None:
        """Give the room back; harmless after `commit`, and when done twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Mapped(Protocol):
    """Committed bytes, readable until `close`; while it is open, it holds a lease of its own on them."""

    @property
    def ref(self) -> KvRef:
        """What was opened."""

    @property
    def buffer(self) -> memoryview:
        """The bytes, read-only: `ref.size` of them, from `ref.offset`."""

    def check(self) -> None:
        """Raise LeaseEnded where what was read so far may not be trusted, since the bytes' owner is gone."""

    def close(self) -> None:
        """Let go of the bytes; harmless when done twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Transport(Protocol):
    """One way of moving KV states."""

    @property
    def name(self) -> str:
        """Its name in a `KvRef`, of schemas.kv.TRANSPORTS."""

    def reserve(self, size: int, /) -> Reservation:
        """Make room for `size` bytes. Raises NoRoom where there is none, ValueError for less than one byte."""

    def open(self, ref: KvRef, /) -> Mapped:
        """Open committed bytes. Raises Gone or LeaseEnded where they are no more, BadRef for a ref that is not ours."""

    def release(self, ref: KvRef, /) -> Released:
        """End the lease that `ref` carries; the bytes go with the last one. Says so where it had ended before."""


@runtime_checkable
class Leased(Transport, Protocol):
    """A transport whose bytes live by leases, which can be handed out and renewed."""

    def offer(self, ref: KvRef, /, *, ttl: float) -> KvRef:
        """Return another ref to the same bytes, good for `ttl` seconds whoever lives: for a receiver not known yet."""

    def renew(self, ref: KvRef, /, *, ttl: float | None = None) -> KvRef:
        """Prolong the lease that `ref` carries. Raises LeaseEnded where it was reaped or released."""

    def close(self) -> None:
        """Stop renewing; what this process holds ends with its time to live."""
