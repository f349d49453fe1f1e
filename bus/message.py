"""One stored message, as every reader of a stream gets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream: its sequence, when the broker stored it (unix ns), its subject, and its bytes."""

    seq: int
    stored_ns: int
    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_direct(cls, data: bytes, headers: Mapping[str, str]) -> "Message":
        """Read the answer to a direct get, whose place in the stream stands in its headers."""
        return cls(
            seq=int(headers["Nats-Sequence"]),
            stored_ns=unix_ns(headers["Nats-Time-Stamp"]),
            subject=headers["Nats-Subject"],
            data=data,
            headers=headers,
        )


def unix_ns(text: str) -> int:
    """Read the broker's timestamps (RFC 3339 in UTC, up to nine decimals) without losing a nanosecond."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)
