"""What can go wrong when the past is gone over again.

MorphogenError
└── ReplayError
    ├── BadRange       a time, sequence, speed or filter that means nothing
    ├── SinkFailed     the events cannot be written where they should go
    ├── RebuildFailed  the projector could not rebuild, and says why
    ├── ReportFailed   a report cannot be made
    └── BacktestFailed a policy cannot be run over the past
"""

from morphogen.schemas.errors import MorphogenError


class ReplayError(MorphogenError):
    """Raised by the rooms of replay; catch it to catch all of them."""


class BadRange(ReplayError, ValueError):
    """Raised when a time, sequence, speed or filter means nothing; the text says what to write instead."""


class SinkFailed(ReplayError):
    """Raised when replayed events cannot be written where they should go."""


class RebuildFailed(ReplayError):
    """Raised when a rebuild did not end well; the live tables stay as they were."""


class ReportFailed(ReplayError):
    """Raised when a report cannot be made: no such run, or no matplotlib for the picture."""


class BacktestFailed(ReplayError):
    """Raised when a policy cannot be run over the past: no such run, nothing recorded, or the policy fails."""
