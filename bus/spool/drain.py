"""Publish everything that dead writers left on this machine, and return when it is in the log: `morphogen sync`."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..connection import connect
from ..settings import Settings
from ..streams import ensure_streams
from .courier import FRAME_RECORDS, Courier
from .leftover import Leftover, Unreadable, leftovers

_PATIENCE = 60.0  # seconds in which the log takes nothing of a spool
_LESS_PATIENCE = 8.0  # with the next ones, where it was so with one: more than an acknowledgement may take

_log = logging.getLogger("morphogen.bus")


@dataclass(frozen=True, slots=True)
class DrainReport:
    """Count what was brought to the log: spools and the runs they belong to, events, their bytes.

    `quarantined` events were damaged on disk and set aside; `busy` spools belong to living processes, which publish
    them; `stuck` ones hold something that could neither be read nor set aside, or that the log does not take, and stay:
    a line names each.
    """

    runs: tuple[str, ...] = ()
    spools: int = 0
    events: int = 0
    bytes: int = 0
    quarantined: int = 0
    busy: int = 0
    stuck: int = 0


async def drain(settings: Settings, progress: "Callable[[DrainReport], None] | None" = None) -> DrainReport:
    """Bring all leftover spools to the log, one after another; `progress` hears of every frame.

    Raises NoBroker or BrokerError where there is no broker to begin with. Once connected, it waits out any loss of less
    than a minute; a spool of which nothing arrives for longer stays, as stuck.
    """
    conn = await connect(settings, name="sync")
    try:
        await ensure_streams(conn)
        report, patience = DrainReport(), _PATIENCE
        for folder in leftovers(settings):
            try:
                left = Leftover.adopt(settings, folder, FRAME_RECORDS)
            except Unreadable as error:
                _log.warning("%s", error)
                report = _plus(report, stuck=1)
                continue
            if left is None:
                report = _plus(report, busy=1)
                continue
            before = report

            def present(before: DrainReport = before, left: Leftover = left) -> DrainReport:
                lanes = left.lanes.values()
                return _plus(
                    before,
                    events=sum(lane.events for lane in lanes),
                    bytes=sum(lane.bytes for lane in lanes),
                    quarantined=sum(lane.quarantined for lane in lanes),
                )

            def tell(present: Callable[[], DrainReport] = present) -> None:
                if progress is not None:
                    progress(present())

            courier = Courier(conn, left, on_progress=tell)
            try:
                if not await courier.finish(patience):
                    _log.warning("%s: stays: %s", folder, courier.trouble or "the log does not answer")
                    patience = _LESS_PATIENCE
                done = left.finish()
            finally:
                courier.stop()
                left.release()
            report = _plus(present(), run=left.identity.run, spools=1, stuck=0 if done else 1)
        return report
    finally:
        await conn.close()


def _plus(report: DrainReport, run: str | None = None, **more: int) -> DrainReport:
    runs = report.runs if run is None or run in report.runs else (*report.runs, run)
    counts = {name: getattr(report, name) + more.get(name, 0) for name in DrainReport.__slots__ if name != "runs"}
    return DrainReport(runs=runs, **counts)
