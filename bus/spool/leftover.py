"""What a dead writer left: its spool, adopted by whoever gets its lock, walked and checked record by record."""

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from morphogen.schemas.errors import FrameError
from morphogen.schemas.frames import decode_records
from morphogen.schemas.names import token, untoken

from ..errors import BusError
from ..settings import Settings
from .attempts import note_attempt
from .cut import Cut
from .mark import Mark
from .spool import remove
from .walk import Damage, Walk
from .writer import Writer, lock

_OLD = 60.0  # seconds after which an unfinished folder is nobody's
_log = logging.getLogger("morphogen.bus")


class Unreadable(BusError):
    """Raised where nobody can say what a folder among the spools holds; its text names the folder."""


class LeftoverLane:
    """Read the segments of one family in order; `done` is the counter up to which the log has them all."""

    def __init__(self, folder: Path, family: str, quarantine: Path, budget: int) -> None:
        self.family = family
        self.done = Mark.read(folder / "acked")
        self._mark: Mark | None = None
        self.events = 0
        self.bytes = 0
        self.quarantined = 0
        self.stuck = False  # damage could be found but not set aside, so the file has to stay
        self._folder = folder
        self._quarantine = quarantine
        self._budget = budget
        self._files = self._sort_files()
        self._path: Path | None = None
        self._walk: Walk | None = None
        self._last = 0  # counter of the newest record met so far
        self._open_end = 0  # damage at the end of a segment, whose extent the next segment tells
        self._cut: Cut | None = None
        self._keep = False

    @property
    def pending(self) -> bool:
        """Tell whether records wait; this reads ahead."""
        return self.cut(self._budget) is not None

    @property
    def pending_bytes(self) -> int:
        """Return the bytes of all files that are left."""
        return self._budget * (1 + len(self._files)) if self._cut is not None else 0

    def cut(self, budget: int) -> Cut | None:
        """Return the next records, the same until they are acknowledged; anew where they are too large for `budget`."""
        cut = self._cut
        if cut is not None:
            if cut.first > self.done and cut.fits(budget):
                return cut
            if cut.last > self.done and self._walk is not None:  # the log has a part of it, or takes no more at a time
                self._walk.position, self._walk.n = cut.start, cut.first - 1
            self._cut = None
        while True:
            if self._walk is None and not self._open_next():
                return None
            assert self._walk is not None
            found = self._walk.step(budget, self.done)
            if isinstance(found, Cut):
                self._count_open_end(found.first)
                self._last, self._cut = found.last, found
                return found
            if isinstance(found, Damage):
                self._set_aside(found)
            else:
                self._last = max(self._last, self._walk.n)
                self._close_file()

    def ack(self, last: int) -> None:
        """Note that the log has all records up to `last`."""
        if self._cut is not None and last >= self._cut.last:
            self.events += self._cut.count
            self.bytes += self._cut.size
        if last > self.done:
            self.done = last
            if self._mark is None:
                self._mark = Mark(self._folder / "acked")
            self._mark.set(last)
            self._mark.write()

    def _sort_files(self) -> list[Path]:
        segments = []
        for path in sorted(self._folder.iterdir()):
            if path.suffix == ".seg" and path.stem.isdigit() and path.is_file():
                segments.append(path)
            elif path.name != "acked":
                self._put_away(path, "is no segment")
        return segments

    def _open_next(self) -> bool:
        while self._files:
            self._path = self._files.pop(0)
            try:
                data = self._path.read_bytes()
            except (OSError, MemoryError) as error:
                self._put_away(self._path, f"cannot be read ({getattr(error, 'strerror', None) or error})")
                continue
            self._walk, self._keep = Walk(data, self._last), False
            return True
        if self._open_end:
            self.quarantined += self._open_end
            self._open_end = 0
        return False

    def _close_file(self) -> None:
        assert self._path is not None
        self._walk = None
        if self._keep:
            self.stuck = True
            return
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _set_aside(self, damage: Damage) -> None:
        """Keep the damaged bytes where somebody can look at them, and count what they held."""
        assert self._walk is not None
        assert self._path is not None
        at_end = self._walk.position >= len(self._walk.data)
        if at_end:
            self._open_end = max(damage.count, 1)
        else:
            self.quarantined += damage.count
        target = self._quarantine / f"{token(self.family)}-{self._path.stem}-{damage.start}.bin"
        try:
            self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.write_bytes(self._walk.data[damage.start : damage.end])
        except OSError as error:
            self._keep = True
            _log.warning("%s: cannot set damaged bytes aside: %s", target, error.strerror)
        _log.warning(
            "%s: %d bytes at %d are damaged (%d events of %s); set aside in %s, the rest goes on",
            self._path, damage.end - damage.start, damage.start, damage.count, self.family, target,
        )  # fmt: skip

    def _count_open_end(self, first: int) -> None:
        if self._open_end:
            self.quarantined += max(first - self._last - 1, self._open_end)
            self._open_end = 0

    def _put_away(self, path: Path, why: str) -> None:
        target = self._quarantine / f"{token(self.family)}-{path.name}"
        try:
            self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.rename(target)
        except OSError:
            self.stuck = True
            target = path
        _log.warning("%s %s; set aside as %s, the rest goes on", path, why, target)


class Leftover:
    """The spool of a dead writer, held by this process; `finish` deletes it once all is in the log."""

    def __init__(self, settings: Settings, folder: Path, identity: Writer, fd: int, budget: int) -> None:
        self.settings = settings
        self.folder = folder
        self.identity = identity
        self.claimed = threading.Event()
        self._fd = fd
        quarantine = settings.home / "quarantine" / token(identity.run) / identity.writer
        self.lanes: dict[str, LeftoverLane] = {}
        self._stuck = False
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                continue
            family, empty = _family(path)
            if family is not None:
                self.lanes[family] = LeftoverLane(path, family, quarantine, budget)
            elif not empty:
                self._stuck = True
                _log.warning("%s: nobody can say of which family it is; it stays", path)

    @classmethod
    def adopt(cls, settings: Settings, folder: Path, budget: int) -> "Leftover | None":
        """Take over a spool; None where its owner lives, somebody else has it, or it is gone. Raises Unreadable."""
        try:
            fd = lock(folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(f"{folder}: cannot be opened: {error.strerror}; left as it is") from error
        if fd is None:
            return None
        try:
            identity = Writer.load(folder)
            if identity is None:
                raise Unreadable(
                    f"{folder}: is no spool of ours, or both copies of its writer are damaged; left as it is"
                )
            return cls(settings, folder, identity, fd, budget)
        except OSError as error:
            os.close(fd)
            raise Unreadable(f"{folder}: cannot be read: {error.strerror}; left as it is") from error
        except BaseException:
            os.close(fd)
            raise

    @property
    def pending(self) -> bool:
        """Tell whether anything is not yet in the log."""
        return any(lane.pending for lane in self.lanes.values())

    def move_to(self, attempt: int) -> None:
        """Go on under another attempt; it is on disk before the first frame is published under it. Raises OSError."""
        self.identity.attempts.append(attempt)
        self.identity.save(self.folder)
        note_attempt(self.settings.attempts_dir, self.identity.run, self.identity.rank, attempt)

    def finish(self) -> bool:
        """Let go of it, and delete it where all is in the log; tell whether it was."""
        done = not self.pending and not self._stuck and not any(lane.stuck for lane in self.lanes.values())
        if done:
            remove(self.folder)
        self.release()
        return done

    def release(self) -> None:
        """Let go of it as it is."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def leftovers(settings: Settings, run: str | None = None) -> Iterator[Path]:
    """Yield the folders of all spools, whoever holds them; what a creator or a remover left half done is deleted."""
    parents = [settings.spool_dir / token(run)] if run is not None else _folders(settings.spool_dir)
    for parent in parents:
        for folder in _folders(parent):
            if not folder.name.startswith("."):
                yield folder
            elif folder.suffix == ".gone" or (folder.suffix == ".new" and _is_old(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _family(folder: Path) -> tuple[str | None, bool]:
    """Return whose lane a folder is, None where that cannot be told, and whether there is nothing in it to lose.

    A long family's name does not fit into its folder's; its records tell it.
    """
    family = untoken(folder.name)
    if family is not None:
        return family, False
    empty = True
    for path in sorted(path for path in folder.iterdir() if path.name != "acked"):
        if path.suffix != ".seg" or not path.is_file():
            empty = False
            continue
        walk = Walk(path.read_bytes(), 0)
        while (found := walk.step(1, 0)) is not None:
            empty = False
            if isinstance(found, Cut):
                with contextlib.suppress(FrameError):
                    family = next(decode_records(found.records)).type.partition(".")[0]
                    if token(family) == folder.name:
                        return family, False
                break
    return None, empty


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []


def _is_old(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > _OLD
    return False
