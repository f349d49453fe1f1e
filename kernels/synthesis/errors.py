"""The errors of synthesis.

SynthesisError       root of this room
├── BadBudget        a budget that bounds nothing, or allows nothing
├── BadProgram       a program that was read is none: an unknown operation, a name that nothing binds
└── CannotRun        a program cannot answer for these parameters: a value is missing, or of another type
"""

from morphogen.schemas.errors import MorphogenError


class SynthesisError(MorphogenError):
    """Root of the errors of synthesis."""


class BadBudget(SynthesisError, ValueError):
    """A budget has a number that bounds nothing, or allows nothing."""


class BadProgram(SynthesisError):
    """What was read is no program: it names an operation or a value that does not exist."""


class CannotRun(SynthesisError):
    """A program cannot answer for the parameters it was given."""
