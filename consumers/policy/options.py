"""What the options of the policies may be."""

from typing import Any

from .errors import PolicyError


def flag(policy: str, name: str, value: Any) -> None:
    """Refuse what is neither true nor false. Raises PolicyError."""
    if not isinstance(value, bool):
        raise PolicyError(f"policy {policy}: {name} is true or false, not {value!r:.50}")
