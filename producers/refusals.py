"""What could not be recorded: counted, and said once in the program's log."""

import logging
from collections.abc import Callable

from morphogen.schemas import sound

_MOST_REASONS = 5  # that are said of one thing, and
_MOST_SAID = 100  # things of which any is said
_LONGEST_SAID = 500  # characters of a thing, and of a reason

_log = logging.getLogger("morphogen")


class Refusals:
    """The refusals of one run."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._said: dict[str, set[str]] = {}
        self.count = 0

    def say(self, what: str, reason: str) -> None:
        """Count a refusal of `what`, and say why unless that was said."""
        self.count += 1
        what, line = what[:_LONGEST_SAID], reason.splitlines()[0][:_LONGEST_SAID] if reason else "no reason given"
        said = self._said.get(what, set()) if len(self._said) < _MOST_SAID else self._said.get(what)
        if said is not None and line not in said and len(said) < _MOST_REASONS:
            said.add(line)
            self._said[what] = said
            _log.warning("run %s: %s was not recorded: %s (said once)", self._run, what, line)


def shown(make: Callable[[], str]) -> str:
    """Return a text of a foreign object's, whose methods may fail."""
    try:
        return sound(make())
    except Exception:  # noqa: BLE001
        return "<it cannot be shown>"
