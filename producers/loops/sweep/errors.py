"""What goes wrong with a sweep as a whole; what goes wrong in one trial is that trial's result.

StepFailed
└── SweepError
    ├── SpaceError      parameters, constraints or settings that no sweep can be made of
    ├── MeasureError    the means of measuring itself cannot be had: a tool that is not there
    └── NothingGood     every configuration failed, or none is allowed
"""

from ..errors import StepFailed


class SweepError(StepFailed):
    """Root of what a sweep refuses; the loop that asked for it ends as failed."""


class SpaceError(SweepError):
    """The parameters, a constraint or a setting of a sweep cannot be understood."""


class MeasureError(SweepError):
    """Nothing can be measured at all; the text says what is missing."""


class NothingGood(SweepError):
    """The sweep came to its end without one configuration that measured well; the text says why."""
