"""What synthesis is given and what it gives back, as plain data."""

from typing import Any

import msgspec

from morphogen.schemas.crystals import Parameter

from .errors import BadBudget
from .program import Program


class ToolStep(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded use of a tool: its dotted name, its arguments by name, and its result, or the text of its error."""

    name: str
    args: dict[str, Any]
    result: Any = None
    ok: bool = True
    error: str | None = None


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One execution that reached its goal: parameters, the uses of tools in their order, and the answer."""

    params: dict[str, Any]
    steps: tuple[ToolStep, ...] = ()
    output: Any = None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How long synthesis may look. Running out of it gives NotFound, never another program.

    Raises BadBudget for negative seconds (or NaN), and for fewer than one value or example.
    """

    seconds: float = 20.0
    values: int = 12_000  # different values that one search may hold
    examples: int = 3  # fewer than these are refused

    def __post_init__(self) -> None:
        if not self.seconds >= 0 or self.values < 1 or self.examples < 1:
            raise BadBudget(
                f"a budget takes seconds from 0, and values and examples from 1, "
                f"got {self.seconds:g}, {self.values} and {self.examples}"
            )


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """What the examples did not decide, and what was done about it.

    `kind` is `never_varied` (a parameter had one value; the program refuses others), `equal` (two values were always the
    same; the program refuses where they differ), `rival` (another column, key, reading or count explained it as well; the
    program refuses where they differ), `constant` (a text or number stands in every example and nothing says
    where it comes from), `bound` (a limit lies somewhere between two recorded values), `unused` (a parameter changes
    nothing), `choice` (which case applies was learned from few examples), `unread` (a recorded step is not needed).
    `subject` names the parameter or the place; `values` are what it was seen to be.
    """

    kind: str
    subject: str
    text: str
    values: tuple[Any, ...] = ()


class Drafted(msgspec.Struct, frozen=True, kw_only=True):
    """A program that does what every example shows, as data and as the text of a tool."""

    program: Program
    source: str
    source_sha256: str  # `sha256:` and the hex digest of the text
    params: tuple[Parameter, ...]
    returns: str  # a Python annotation
    capabilities: tuple[str, ...]  # full names of the tools that it calls
    doubts: tuple[Doubt, ...] = ()
    examples: int = 0
    tried: int = 0  # values that the search looked at


class NotFound(msgspec.Struct, frozen=True, kw_only=True):
    """No program is given, and why: one line that names the place which could not be explained."""

    reason: str
    tried: int = 0
