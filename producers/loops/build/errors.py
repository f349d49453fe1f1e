"""What goes wrong while artifacts are built.

StepFailed
└── BuildFailed     an artifact cannot be made or written; the text names it
"""

from ..errors import StepFailed


class BuildFailed(StepFailed):
    """An artifact cannot be made or written. What was built before it stays."""
