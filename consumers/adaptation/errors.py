"""What the wiring of growth into a loop refuses, before training begins.

MorphogenError
└── GrowthError        growth cannot begin as asked
    └── MissingExtra   an optional package is not installed
"""

from morphogen.schemas import MorphogenError


class GrowthError(MorphogenError):
    """Growth cannot begin as asked: what is wrong, and what to pass instead."""


class MissingExtra(GrowthError, ImportError):
    """A package of the extra `adapt` is not installed."""
