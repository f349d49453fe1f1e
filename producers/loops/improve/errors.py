"""What can go wrong while a program is improved.

LoopError
└── ImproveError     no recorded run, no such loop, a condition that cannot be read
"""

from ..errors import LoopError


class ImproveError(LoopError):
    """The improver cannot do what it is asked."""
