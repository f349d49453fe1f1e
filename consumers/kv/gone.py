"""Which handoffs brought sessions to a worker that are not there any more: given on, or dropped.

Who gave one here and died before it could forget it asks for the handoff, and not for the session, which may be on a third
worker by now. A line a handoff; one that a kill or a full disk tore is known no more, and spoils no other.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from morphogen.schemas import token

MOST = 10_000  # handoffs remembered: whoever gave one away has asked long before


class Gone:
    """The file of one worker, which alone writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8", "replace").split("\n")[:-1] if path.is_file() else []
        known = list(filter(None, lines))[-MOST:]
        self._known = set(known)
        if len(lines) > 2 * MOST:
            fresh = path.with_name(f"{path.name}.new")
            fresh.write_text("".join(f"{line}\n" for line in known), "utf-8")
            fresh.replace(path)

    def __contains__(self, handoff: str) -> bool:
        return token(handoff) in self._known

    def add(self, handoffs: Iterable[str]) -> None:
        """Write down that what these handoffs brought is about to go. Raises OSError; this process knows it all the same."""
        new = sorted({token(one) for one in handoffs} - self._known)
        if not new:
            return
        self._known.update(new)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + "".join(f"{line}\n" for line in new))  # it may stand behind a torn line
            file.flush()
            os.fsync(file.fileno())
