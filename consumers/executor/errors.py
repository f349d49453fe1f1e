"""Errors of this room, all below MorphogenError.

ExecutorError
├── Refused         an action is not legal, or not possible, and was not done
└── LoadError       what a menu names could not be made into a seed
"""

from morphogen.schemas import MorphogenError


class ExecutorError(MorphogenError):
    """Something could not be done to a slot."""


class Refused(ExecutorError):
    """An action is not legal or not possible here; nothing was changed."""


class LoadError(ExecutorError):
    """A blueprint or an artifact could not be made into a seed.

    `kind` is what the log calls it: load, checksum, shape, memory, device, nonfinite or exception. `lasting` is true
    where another try cannot help.
    """

    def __init__(self, message: str, *, kind: str = "load", lasting: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.lasting = lasting
