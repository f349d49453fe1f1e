"""The watch over a link: it notices a hang that no error tells of, and a broker that runs and stores no more."""

import asyncio
import contextlib
import json
import logging

from .aside import in_thread
from .broker import Endpoint
from .broker import lifecycle as broker
from .broker.standing import has_room, stuck
from .broker.state import BrokerFiles, is_held
from .errors import BusError, NoResponders, RequestTimeout
from .link import Link
from .settings import Settings

WATCH_EVERY = 5.0
ECHO_TIMEOUT = 2.0

_JETSTREAM_OFF = (10039, 10076)
_OUT_OF_ROOM = (10023, 10047)
_AGAIN = 0.1
_ROOM_AFTER_CRASH = 32 << 20
_ROOM_AFTER_REFUSAL = 128 << 20  # more than a broker leaves free, so that a restart gains something

_log = logging.getLogger("morphogen.bus")


class _Orphan(Exception):
    """The files of the broker were deleted while it runs: what it still acknowledges, nobody will find."""


class Watch:
    """Ask a link every few seconds whether it lives, and bring an embedded broker back to storing."""

    def __init__(self, settings: Settings, may_restart: bool) -> None:
        self._settings = settings
        self._may_restart = may_restart
        self._unacknowledged = 0
        self._refused = False
        self._told = False

    def acknowledged(self) -> None:
        """Note that the broker stored a message."""
        self._unacknowledged, self._refused, self._told = 0, False, False

    def unacknowledged(self) -> None:
        """Note that a message got no answer."""
        self._unacknowledged += 1

    def refused(self, err_code: int) -> None:
        """Note that the broker refused a message; only a want of room matters here."""
        self._refused = self._refused or err_code in _OUT_OF_ROOM

    async def until_lost(self, link: Link, endpoint: Endpoint) -> None:
        """Return when the client has ended, met two questions in a row with silence, or its broker lost its files."""
        silent = 0
        while not link.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if silent else WATCH_EVERY):
                    await link.ended.wait()
                    return
            try:
                await self._check(link, endpoint)
                silent = 0
            except _Orphan:
                _log.warning("the files of the broker (pid %s) were deleted while it runs", endpoint.pid)
                return
            except RequestTimeout:
                # Once may be our own loop, blocked by somebody; the second question finds out.
                silent += 1
                if silent == 2:
                    return
            except BusError as error:
                _log.debug("watch: %s", error)

    async def _check(self, link: Link, endpoint: Endpoint) -> None:
        if not endpoint.embedded or endpoint.pid is None:
            await link.echo(ECHO_TIMEOUT)
            return
        if not await in_thread(lambda: is_held(BrokerFiles(self._settings.broker_dir).alive_lock)):
            raise _Orphan
        try:
            reply = await link.request("$JS.API.INFO", b"", timeout=ECHO_TIMEOUT)
            off = json.loads(reply.data).get("error", {}).get("err_code") in _JETSTREAM_OFF
        except NoResponders:
            off = True
        if self._may_restart and (off or self._unacknowledged or self._refused):
            await self._revive(endpoint.pid)

    async def _revive(self, pid: int) -> None:
        """Restart a broker that said it stores no more, as soon as its disk has room."""
        reason = await in_thread(lambda: stuck(self._settings, pid))
        need = _ROOM_AFTER_CRASH
        if reason is None and self._refused:
            reason, need = "its disk was full when it started", _ROOM_AFTER_REFUSAL
        if reason is None:
            return
        if not has_room(self._settings, need):
            if not self._told:
                _log.warning("the broker stores no more (%s): free some space at %s", reason, self._settings.home)
            self._told = True
            return
        _log.warning("the broker stored no more (%s) and its disk has room again: restarting it", reason)
        self.acknowledged()
        await in_thread(lambda: broker.restart(self._settings, pid=pid))
