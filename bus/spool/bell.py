"""What wakes the background thread: a flag that costs a look, and a pipe that is written only when somebody sleeps."""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable

_log = logging.getLogger("morphogen.bus")


class Bell:
    """Let the trainer's threads tell the background thread that there is work.

    `attention` is False nearly always; `append` looks at it and calls `attend` only when it is set: by the
    background thread before it goes to sleep, or by `leave` when an errand waits for a safe moment.
    """

    __slots__ = ("_errands", "attention", "ring")

    def __init__(self) -> None:
        self.attention = False
        self.ring: Callable[[], None] | None = None
        self._errands: deque[Callable[[], None]] = deque()

    def leave(self, errand: Callable[[], None]) -> None:
        """Have `errand` run by the next `attend`, when its caller holds no lock."""
        self._errands.append(errand)
        self.attention = True

    def attend(self) -> None:
        """Run the errands that wait, and wake the background thread."""
        self.attention = False
        while self._errands:
            try:
                self._errands.popleft()()
            except IndexError:  # another thread took it
                break
            except Exception as error:  # noqa: BLE001  (this runs in the trainer)
                _log.warning("cannot record what was dropped: %s: %s", type(error).__name__, error)
        ring = self.ring  # which a publisher that is closed takes away
        if ring is not None:
            ring()


class Ear:
    """Hold the pipe behind a bell: `ring` from any thread, `fd` becomes readable, `quiet` empties it."""

    def __init__(self) -> None:
        self.fd = self._mouth = -1  # what `__del__` closes where the machine gives no more descriptors
        if hasattr(os, "eventfd"):
            self.fd = self._mouth = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._mouth = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._mouth, False)

    def ring(self) -> None:
        """Make `fd` readable; a full pipe is loud enough."""
        with contextlib.suppress(OSError):
            os.write(self._mouth, b"\1\0\0\0\0\0\0\0")

    def quiet(self) -> None:
        """Take what was rung so far."""
        with contextlib.suppress(OSError):
            os.read(self.fd, 4096)

    def __del__(self) -> None:
        # Not earlier: whoever can still ring must not write into a file that got the same number.
        for fd in {self.fd, self._mouth}:
            with contextlib.suppress(OSError):
                os.close(fd)
