"""`morphogen demo`: a real training run, killed and restarted, asked in SQL, and rebuilt from its log."""

from .story import tell

__all__ = ["tell"]
