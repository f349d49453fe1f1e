"""What dispatch refuses.

MorphogenError
└── DispatchError      a request cannot be dispatched as asked
    └── MissingExtra   an optional package is not installed
"""

from morphogen.schemas import MorphogenError


class DispatchError(MorphogenError):
    """A request, a configuration or a wiring that cannot be served: what, and what to do."""


class MissingExtra(DispatchError, ImportError):
    """A package of the extra `match` is not installed."""
