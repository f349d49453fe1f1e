"""The outer improver: from what recorded runs show to a changed program, checked and back-tested, for somebody to accept.

By rule: drop steps that nobody needs, let what fails early fail first, narrow a sweep's space to what its measurements
support. By a model, where one is configured. It knows programs and the log; it writes only what was accepted.
"""

from .accept import accepts, read_policy
from .backtest import BackTest, RunTest, backtest
from .errors import ImproveError
from .improver import Improvement, Refused, improve
from .proposal import Proposal
from .writing import write

__all__ = [
    "BackTest",
    "ImproveError",
    "Improvement",
    "Proposal",
    "Refused",
    "RunTest",
    "accepts",
    "backtest",
    "improve",
    "read_policy",
    "write",
]
