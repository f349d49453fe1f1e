"""What came of one call: always an `Outcome`, whatever the tool did."""

import msgspec

Value = None | bool | int | float | str | bytes | list["Value"] | dict[str | int, "Value"]


class ToolFailure(msgspec.Struct, frozen=True):
    """What the tool raised, or how it ended without an answer. `line` is a line of the tool's text."""

    type: str
    message: str
    line: int | None = None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One use of a capability: hashes are `sha256:` of the value's MessagePack with its keys in order."""

    name: str
    effect: str  # pure, read, write or external
    arguments: str
    result: str | None  # None where it failed or did not finish
    error: str | None = None
    duration_ns: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The value, or the failure, and what the call cost."""

    value: Value = None
    error: ToolFailure | None = None
    effects: tuple[Effect, ...] = ()
    printed: str = ""
    printed_cut: bool = False
    cpu_ns: int = 0
    wall_ns: int = 0
    rss_bytes: int = 0
    layers_held: tuple[str, ...] = ()
    killed_by: str | None = (
        None  # wall, cpu, protocol, capabilities, or signal:NAME; None where the tool ended by itself
    )

    @property
    def ok(self) -> bool:
        """Whether the tool returned a value."""
        return self.error is None
