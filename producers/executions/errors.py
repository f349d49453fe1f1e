"""What the recorder of executions refuses.

MorphogenError
└── ExecutionError      an execution is used wrongly: a tool that is not there, an end that is told twice
    └── PricesError     the file of prices cannot be understood
"""

from morphogen.schemas.errors import MorphogenError


class ExecutionError(MorphogenError):
    """An execution is used wrongly."""


class PricesError(ExecutionError):
    """The file of prices cannot be understood."""
