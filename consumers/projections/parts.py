"""A state in parts: a commit writes the parts that changed, and leaves the others as they lie in the store."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Parts:
    """Parts of a state by key, such as one a run. It never changes: `changed` makes the next one.

    A part is a live object, or, as it came from the store, the bytes that its projection wrote.
    """

    __slots__ = ("parts", "written")

    def __init__(self, parts: Mapping[str, Any] | None = None, written: Mapping[str, bytes] | None = None) -> None:
        self.parts: Mapping[str, Any] = MappingProxyType({}) if parts is None else parts
        self.written: Mapping[str, bytes] = MappingProxyType({}) if written is None else written
        """The bytes of those that differ from the state before."""

    def changed(self, parts: Mapping[str, Any], written: Mapping[str, bytes]) -> "Parts":
        """Return the state with these parts in place of what was there, and the bytes that they are stored as."""
        return Parts({**self.parts, **parts}, written)
