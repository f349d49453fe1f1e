"""How much one call may take."""

import msgspec

from .errors import BadJob


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one call. What crosses one of them ends the call, and the outcome says which."""

    wall_seconds: float = 5.0  # the whole call, capabilities included
    cpu_seconds: int = 2  # of the worker's processor time; the kernel counts whole seconds
    memory_bytes: int = 256 << 20  # address space, of which the interpreter takes about 40 MB
    value_bytes: int = 1 << 20  # the encoded value, and one request to or reply from a capability
    value_items: int = 200_000  # numbers, texts, lists and dicts inside one value
    printed_chars: int = 64 << 10  # of what the tool prints; the rest is let go
    capability_calls: int = 1000  # uses of capabilities in one call
    capability_seconds: float = 5.0  # for one use of a declared tool

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not 0 < value < 1 << 40:
                raise BadJob(f"the limit {name}={value!r} must be above 0 and below 2**40")
        if self.memory_bytes < 64 << 20:
            raise BadJob(f"memory_bytes={self.memory_bytes} is below the 64 MiB that an interpreter needs; give more")
