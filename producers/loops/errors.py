"""What can go wrong in a loop.

MorphogenError
└── LoopError
├── ProgramChanged       the program of a run is not the one that it began with
├── UnknownRun           the log holds no loop of that name
├── RunExists            a loop of that name has begun already
├── Fenced               another process has taken this run over
├── NotSuspended         an answer for a run that waits for none
├── BadValue             a value that a run was to begin with does not fit its program
├── StepFailed           a step came to an end that is no success
│   ├── ToolFailed       a tool did what was asked, and it failed: an exit code, a status, a refused write
│   │   └── Unserved     nobody serves what it asks for; nothing was done
│   ├── EmitFailed       a trace item does not fit its case
│   └── InvariantViolated  an invariant of the program is false
├── ToolRefused          a tool will not do what it is asked: outside the workspace, a host not allowed
├── WorkspaceError       the workspace cannot be used
└── Interrupted          the process was asked to stop; the run can be resumed
"""

from morphogen.schemas import MorphogenError, sound

_LINE = 2000  # characters of an error that the log holds


class LoopError(MorphogenError):
    """Root of what can go wrong in a loop."""


class ProgramChanged(LoopError):
    """The program of a run is not the one that it began with."""


class UnknownRun(LoopError):
    """The log holds no loop of that name."""


class RunExists(LoopError):
    """A loop of that name has begun already."""


class Fenced(LoopError):
    """Another process has taken this run over; this one must not act any more."""


class NotSuspended(LoopError):
    """An answer for a run that waits for none."""


class BadValue(LoopError):
    """A value that a run was to begin with does not fit its program."""


class StepFailed(LoopError):
    """A step came to an end that is no success; the loop ends as failed."""


class ToolFailed(StepFailed):
    """A tool did what was asked, and it failed; `output` is what it gave all the same."""

    def __init__(self, message: str, output: object = None) -> None:
        super().__init__(message)
        self.output = output


class Unserved(ToolFailed):
    """Nobody serves what a tool asks for: nothing was done, and it can be asked again once somebody does."""


class EmitFailed(StepFailed):
    """A trace item does not fit its case."""


class InvariantViolated(StepFailed):
    """An invariant of the program is false."""

    def __init__(self, message: str, invariant: str) -> None:
        super().__init__(message)
        self.invariant = invariant


class ToolRefused(StepFailed):
    """A tool will not do what it is asked: a path outside the workspace, a host that is not allowed, bad arguments."""


class WorkspaceError(LoopError):
    """The workspace cannot be used: not a folder, read-only, or full."""


class Interrupted(LoopError):
    """The process was asked to stop; the run can be resumed. `at_rest`: it was a service that had nothing in hand."""

    def __init__(self, message: str, *, at_rest: bool = False) -> None:
        super().__init__(message)
        self.at_rest = at_rest


def one_line(error: BaseException) -> str:
    """Return what an error says as one line that the log can hold; the error's name where it says nothing."""
    return (" ".join(sound(error).split()) or type(error).__name__)[:_LINE]
