"""What can be wrong with a sandbox, with a tool's text, or with what a tool asks for.

    MorphogenError
    └── SandboxError               anything of this room
        ├── Unsupported            not Linux, or a processor whose system calls are not known here
        ├── LayerMissing           a required layer does not hold on this machine
        ├── SandboxBroken          the processes of the sandbox could not be started or were lost
        ├── BadCapability          capabilities that are declared wrongly
        ├── BadJob                 arguments or limits that cannot cross to a tool
        ├── UnsafeTool             a tool whose text is outside the grammar: line, column, what, what to do
        └── Refused                a capability that refuses what a tool asks of it; the tool sees a ToolError

What a tool does (raise, loop, crash, lie) is never an exception here: it is an `Outcome`. Each text is one line.
"""

from morphogen.schemas import MorphogenError


class SandboxError(MorphogenError):
    """Root of what this room raises."""


class Unsupported(SandboxError):
    """Not Linux, or a processor whose system calls are not known here."""


class LayerMissing(SandboxError):
    """A required layer does not hold on this machine."""

    def __init__(self, message: str, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


class SandboxBroken(SandboxError):
    """The processes of the sandbox could not be started, or were lost."""


class BadCapability(SandboxError, ValueError):
    """Capabilities that are declared wrongly."""


class BadJob(SandboxError, ValueError):
    """Arguments or limits that cannot cross to a tool."""


class UnsafeTool(SandboxError, ValueError):
    """A tool whose text is outside the grammar."""

    def __init__(self, line: int, column: int, what: str, fix: str) -> None:
        super().__init__(f"line {line}, column {column}: {what}; {fix}")
        self.line = line
        self.column = column
        self.what = what
        self.fix = fix


class Refused(SandboxError):
    """A capability that refuses what a tool asks of it."""
