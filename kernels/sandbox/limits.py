"""How much one call may take."""

import msgspec

from .errors import BadJob

_MOST_SECONDS = 1_000_000
_MOST = {
    "cpu_seconds": _MOST_SECONDS, "memory_bytes": 1 << 40, "value_bytes": 1 << 28, "value_items": 1 << 40,
    "printed_chars": 1 << 28, "capability_calls": 1 << 40,
}  # fmt: skip


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one call. What crosses one of them ends the call, and the outcome says which.

    BadJob where one is of another type, is not above 0, or is above what the far side can keep.
    """

    wall_seconds: float = 5.0  # the whole call, capabilities included
    cpu_seconds: int = 2  # of the worker's processor time; the kernel counts whole seconds
    memory_bytes: int = 256 << 20  # address space, of which the interpreter takes about 40 MB
    value_bytes: int = 1 << 20  # the encoded value, and one request to or reply from a capability
    value_items: int = 200_000  # numbers, texts, lists and dicts inside one value
    printed_chars: int = 64 << 10  # of what the tool prints; the rest is let go
    capability_calls: int = 1000  # uses of capabilities in one call
    capability_seconds: float = 5.0  # for one use of a declared tool

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if type(value) is not int or not 0 < value <= most:
                raise BadJob(f"the limit {name} must be a whole number from 1 to {most}")
        for name in ("wall_seconds", "capability_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST_SECONDS:
                raise BadJob(f"the limit {name} must be a number of seconds above 0, and at most {_MOST_SECONDS}")
        if self.memory_bytes < 64 << 20:
            raise BadJob(f"memory_bytes={self.memory_bytes} is below the 64 MiB that an interpreter needs; give more")
