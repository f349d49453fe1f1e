"""Read families from archive and log: the whole past at once, what has come since, or what comes from now on."""

import itertools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.bus.errors import BlobDamaged, BlobMissing
from morphogen.schemas.executions import ExecutionFinished, ExecutionStarted, GoalEmbedded

from .families import Families
from .trace import At

if TYPE_CHECKING:
    from morphogen.bus import Bus, Seen

FAMILIES = (ExecutionStarted.family, GoalEmbedded.family)
"""The families of events that the fold takes."""

_log = logging.getLogger("morphogen.executions")


def read_families(bus: "Bus", *, values: bool = True) -> Families:
    """Return the fold over archive and log up to its present end; with `values`, what lies in blobs is fetched.

    A blob that is gone, or damaged, is told to the program's log once; its trace is not `whole` then.
    """
    families = Families()
    catch_up(bus, families, values=values)
    return families


def catch_up(bus: "Bus", families: Families, *, values: bool = True) -> int:
    """Fold what has come after `families.position`; return how many events that was. One that broke off can be repeated."""
    count = 0
    for frame in frames(bus, families.position, FAMILIES):
        for seen in frame:
            families.seen(seen.event, at_of(seen))
        count += len(frame)
    if values and count:
        fetch(bus, families)
    return count


def follow(bus: "Bus", families: Families, *, values: bool = True) -> "Iterator[Seen]":
    """Fold what comes after `families.position`, for ever, and yield each event once it is folded. Catch up first."""
    for seen in bus.past(after=families.position, family=FAMILIES, follow=True):
        families.seen(seen.event, at_of(seen))
        if values and isinstance(seen.event, ExecutionFinished):
            fetch(bus, families)
        yield seen


def frames(bus: "Bus", after: int, families: tuple[str, ...]) -> "Iterator[list[Seen]]":
    """Yield the events of families in archive and log after a sequence, all of a frame at once.

    So the position of who folds them has no frame of which it knows a part, whatever breaks off the reading.
    """
    for _, frame in itertools.groupby(bus.past(after=after, family=families), lambda seen: seen.frame.seq):
        yield list(frame)


def fetch(bus: "Bus", families: Families) -> None:
    """Bring the values that kept traces have in blobs."""
    found: dict[str, Any] = {}
    for blob in sorted(families.blobs - families.gone):
        try:
            found[blob] = msgspec.msgpack.decode(bus.blobs.get(blob), strict=False)
        except (BlobMissing, BlobDamaged, msgspec.MsgspecError) as error:
            _log.warning("a recorded value cannot be had, its execution is not replayed: %s", error)
            families.gone.add(blob)
    if found:
        families.supply(found)


def at_of(seen: "Seen") -> At:
    """Return where an event stands."""
    return At(seen.frame.seq, seen.idx, seen.record.time, seen.frame.run, seen.frame.stored)
