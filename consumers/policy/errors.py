"""Errors of this room, all below MorphogenError.

    PolicyError
    └── CheckpointError    a policy's checkpoint cannot be read

Each text is one line that a command line can print.
"""

from morphogen.schemas import MorphogenError


class PolicyError(MorphogenError):
    """A policy cannot be made, loaded or asked."""


class CheckpointError(PolicyError):
    """A checkpoint is missing, damaged, or of another kind of policy."""
