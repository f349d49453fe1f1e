"""What a producer says of its own books: what it had to drop, and what it counted when it closed."""

import msgspec

from .event import Event


class ProducerDropped(Event, type="producer.dropped", version=1):
    """Unsent high-rate records were given up: the spool was full, or bytes in it were damaged."""

    lane: str  # the family whose records are gone
    first: int
    last: int
    count: int
    bytes: int
    reason: str


class ProducerClosed(Event, type="producer.closed", version=1):
    """A producer closed cleanly; `produced` is its last counter in each family, this event not included."""

    produced: dict[str, int] = msgspec.field(default_factory=dict)
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
