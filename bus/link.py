"""One nats-py client, from its connect to its end, with the reply inbox that all requests share.

nats-py's own reconnecting, request futures and close can each hang or flood the log; here a client lives once, every
waiter has a timer of its own, and an end wakes them all.
"""

import asyncio
import contextlib
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from .broker import Endpoint
from .errors import (
    BusError,
    Disconnected,
    MessageTooLarge,
    NoBroker,
    NoResponders,
    NotAllowed,
    RequestTimeout,
    lasting,
)
from .nats_py import Client, Pieces
from .nats_py import errors as nats_errors

_CLOSE_PATIENCE = 1.0
_PENDING_BYTES = 32 << 20
_NO_RESPONDERS = "503"
_HEAD_START = 0.5  # seconds that an address has before the next one is tried beside it
_REFUSAL = re.compile(r'(permissions violation [^"]*"(\S*)".*)', re.IGNORECASE)

_log = logging.getLogger("morphogen.bus")


class Link:
    """Hold a connected client until it ends; a Link never reconnects."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.nc = Client()
        self.ended = asyncio.Event()
        self.on_end: Callable[[], None] = _nothing
        self.last_error: Exception | None = None
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._tokens = itertools.count(1)
        self._waiting: dict[str, tuple[str, asyncio.Future[Any]]] = {}  # token -> subject and reply
        self._deaf = ""  # why no answer can reach us
        self._told: set[str] = set()

    async def open(self, endpoint: Endpoint, *, name: str, timeout: float) -> None:
        """Connect to the one address of this link; any failure comes out as an exception of nats-py or the system."""
        try:
            async with asyncio.timeout(timeout):
                await self.nc.connect(
                    servers=[_without_user(self.url)],
                    name=name,
                    **_who(self.url, endpoint.token),
                    user_credentials=str(endpoint.creds) if endpoint.creds else None,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_end,
                    closed_cb=self._on_end,
                    # Together these three make it fail at the first refusal and end at the first loss.
                    allow_reconnect=False,
                    dont_randomize=True,  # it would draw from the global random, which belongs to the training job
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=timeout,
                    ping_interval=120,
                    pending_size=_PENDING_BYTES,
                    flush_timeout=_CLOSE_PATIENCE,
                )
                # Its callbacks are not called where its own clean-up meets the broken socket.
                for task in (self.nc._reading_task, self.nc._flusher_task):
                    task.add_done_callback(self._on_task_end)
                _say_that_it_is_tls(self.nc)
                await self.nc.listen(f"{self._inbox}.*", self._on_reply)
        except BaseException:
            await self.close()
            raise

    async def request(
        self, subject: str, data: bytes | Pieces, *, headers: Mapping[str, str] | None = None, timeout: float
    ) -> Any:
        """Return the first reply, a nats-py Msg.

        Raises Disconnected, RequestTimeout, NoResponders, NotAllowed, MessageTooLarge.
        """
        msg = await self._exchange(subject, data, dict(headers) if headers else None, timeout)
        if msg.headers and msg.headers.get("Status") == _NO_RESPONDERS and not msg.data:
            raise NoResponders(f"nobody answers on {subject} at {shown(self.url)}; is what serves it running?")
        return msg

    async def echo(self, timeout: float) -> float:
        """Send a message to ourselves through broker and read loop; return the seconds it took."""
        start = time.perf_counter()
        await self._exchange(None, b"", None, timeout)
        return time.perf_counter() - start

    async def _exchange(
        self, subject: str | None, data: bytes | Pieces, headers: dict[str, str] | None, timeout: float
    ) -> Any:
        if self.ended.is_set():
            raise Disconnected(f"no connection to the broker at {shown(self.url)}; it is being restored")
        if self._deaf:
            raise NotAllowed(self._deaf)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        token = str(next(self._tokens))
        inbox = f"{self._inbox}.{token}"
        self._waiting[token] = subject or inbox, reply
        # A timer and not a cancellation: nats-py swallows cancellations while it flushes.
        timer = loop.call_later(timeout, _expire, reply, subject or "ourselves", timeout)
        try:
            if subject is None:
                await self.nc.publish(inbox, data)
            else:
                await self.nc.publish(subject, data, reply=inbox, headers=headers)
            return await reply
        except nats_errors.MaxPayloadError as error:
            raise MessageTooLarge(
                f"a message of {len(data)} bytes for {subject} is larger than the broker takes; raise its max_payload"
            ) from error
        except BusError:
            raise
        except (nats_errors.Error, OSError) as error:
            raise Disconnected(f"the connection to {shown(self.url)} failed: {error}") from error
        finally:
            timer.cancel()
            del self._waiting[token]
            if reply.done() and not reply.cancelled():
                reply.exception()  # marks it as seen where publish failed first

    async def close(self) -> None:
        """End the client within about a second, by force where it hangs, and wake every waiter."""
        self._end()
        closing = asyncio.ensure_future(self.nc.close())
        await asyncio.wait((closing,), timeout=_CLOSE_PATIENCE)
        if not closing.done():
            closing.cancel()
            self._abort()
            await asyncio.wait((closing,), timeout=_CLOSE_PATIENCE)
        if closing.done() and not closing.cancelled():
            closing.exception()
        for subscription in list(self.nc._subs.values()):
            subscription._stop_processing()  # where the client's own close broke off half-way

    def _abort(self) -> None:
        with contextlib.suppress(AttributeError):
            self.nc._transport._io_writer.transport.abort()

    async def _on_error(self, error: Exception) -> None:
        # nats-py's own handler logs a traceback for each attempt; a loss is told once, by the connection.
        self.last_error = error
        refusal = _REFUSAL.search(str(error))
        if refusal is not None:
            self._on_refusal(refusal[1], refusal[2].lower())

    def _on_refusal(self, words: str, place: str) -> None:
        """Hand a refusal, which the broker sends beside the answers, to whoever would wait for one in vain."""
        refused = NotAllowed(f"the broker at {shown(self.url)} does not let this user do that: {words}")
        inbox = self._inbox.lower()
        if place == f"{inbox}.*":
            self._deaf = str(refused)
        heard = bool(self._deaf)  # every request tells it
        for token, (subject, reply) in self._waiting.items():
            if self._deaf or place in (subject.lower(), f"{inbox}.{token}"):
                heard = True
                if not reply.done():
                    reply.set_exception(refused)
        for ask in list(self.nc.refusals):
            heard = ask(place, refused) or heard
        if not heard and place not in self._told:
            self._told.add(place)
            _log.warning("%s", refused)

    def _on_task_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            task.exception()  # marks it as seen
        self._end()

    async def _on_end(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self.on_end()
        for _, reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(Disconnected(f"the connection to {shown(self.url)} was lost"))

    async def _on_reply(self, msg: Any) -> None:
        _, reply = self._waiting.get(msg.subject.rpartition(".")[2], ("", None))
        if reply is not None and not reply.done():
            reply.set_result(msg)


async def open_link(endpoint: Endpoint, *, name: str, timeout: float) -> Link:
    """Connect to the first address that accepts us. Raises NoBroker, with the reason of each, when none does.

    Each address has `timeout` seconds of its own: the next is tried as soon as one has failed, or beside one that is slow.
    """
    trials: list[asyncio.Task[Link | str]] = []
    chosen: Link | None = None
    urls = list(endpoint.urls)
    try:
        while urls or not all(trial.done() for trial in trials):
            if urls:
                trials.append(asyncio.create_task(_try(endpoint, urls.pop(0), name=name, timeout=timeout)))
            done, _ = await asyncio.wait(
                [trial for trial in trials if not trial.done()],
                timeout=_HEAD_START if urls else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for trial in done:
                if isinstance(link := trial.result(), Link):
                    chosen = link
                    return link
    finally:
        await _let_go(trials, chosen)
    reasons = "; ".join(str(trial.result()) for trial in trials)
    advice = "see `morphogen status`" if endpoint.embedded else "check MORPHOGEN_URL, or unset it for the embedded"
    raise NoBroker(f"no broker answers ({reasons}); {advice}")


async def _try(endpoint: Endpoint, url: str, *, name: str, timeout: float) -> Link | str:
    """Return a link to one address, or why there is none. Raises NoBroker where no address would do."""
    link = Link(url)
    try:
        await link.open(endpoint, name=name, timeout=timeout)
    except ImportError as error:
        raise NoBroker(
            f"a credentials file needs the package {error.name}: run pip install 'nats-py[nkeys]'"
        ) from error
    except TimeoutError:
        return f"{shown(url)}: no answer within {lasting(timeout)}"
    except Exception as error:  # noqa: BLE001  (what is wrong in a credentials file may be raised as anything)
        return f"{shown(url)}: {_reason(error, link)}"
    return link


async def _let_go(trials: "list[asyncio.Task[Link | str]]", chosen: Link | None) -> None:
    """End what was tried beside the chosen one."""
    under_way = [trial for trial in trials if trial.cancel()]
    if under_way:
        await asyncio.wait(under_way, timeout=_CLOSE_PATIENCE)
    for trial in trials:
        if trial.done() and not trial.cancelled() and trial.exception() is None:
            link = trial.result()
            if isinstance(link, Link) and link is not chosen:
                await link.close()


def shown(url: str) -> str:
    """Return an address without the user, password or token that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _who(url: str, token: str | None) -> dict[str, str | None]:
    """Return what nats-py is told of us: the user that an address names, or else the token."""
    parts = urlsplit(url)
    if parts.password is not None:
        return {"user": unquote(parts.username or ""), "password": unquote(parts.password)}
    return {"token": unquote(parts.username) if parts.username else token}


def _say_that_it_is_tls(nc: Client) -> None:
    """Tell asyncio's protocol what nats-py does not: that it is on TLS, where a half-open end makes it complain."""
    writer = getattr(nc._transport, "_io_writer", None)  # a websocket has none
    if writer is not None and writer.get_extra_info("ssl_object") is not None:
        writer.transport.get_protocol()._over_ssl = True


def _reason(error: Exception, link: Link) -> str:
    cause = link.last_error if isinstance(error, nats_errors.NoServersError) else error
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return " ".join(str(cause or error).split()) or type(cause or error).__name__


def _expire(reply: "asyncio.Future[Any]", subject: str, timeout: float) -> None:
    if not reply.done():
        reply.set_exception(RequestTimeout(f"no reply from {subject} within {lasting(timeout)}"))


def _nothing() -> None:
    """Tell nobody."""
