"""Synthesis: from recorded examples of one task to a typed program that does it, without a model.

Knows examples, values and programs; knows no log, runs no generated text, and calls no tool. It refuses rather than
guesses: what the examples do not decide is either checked by the program itself or told as a doubt.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .errors import BadProgram, CannotRun, SynthesisError
    from .examples import Budget, Doubt, Drafted, Example, NotFound, ToolStep
    from .program import Program
    from .running import Trace, run_program
    from .synthesize import synthesize
    from .tape import Diverged, Tape
    from .write import written

_HOMES = {
    # What is given, and what comes of it
    "ToolStep": "examples", "Example": "examples", "Budget": "examples",
    "Drafted": "examples", "NotFound": "examples", "Doubt": "examples",
    "synthesize": "synthesize",
    # The program: as data, as it runs, as text
    "Program": "program", "run_program": "running", "Trace": "running", "written": "write",
    "Tape": "tape", "Diverged": "tape",
    # What is refused
    "SynthesisError": "errors", "BadProgram": "errors", "CannotRun": "errors",
}  # fmt: skip

__all__ = [
    "BadProgram",
    "Budget",
    "CannotRun",
    "Diverged",
    "Doubt",
    "Drafted",
    "Example",
    "NotFound",
    "Program",
    "SynthesisError",
    "Tape",
    "ToolStep",
    "Trace",
    "run_program",
    "synthesize",
    "written",
]

__getattr__ = lazily(__name__, _HOMES)
