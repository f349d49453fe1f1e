"""The index as a process: it follows the log, and answers who holds which prefix.

    server = IndexServer(conn, settings); await server.run()          # in one process
    match = await longest_prefix(conn, tokens)                        # in any other

A question goes over request/reply as msgpack; tokens travel as the bytes of an int32 array. An answer says up to which
message of the log it holds.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.bus.errors import MessageTooLarge, NoResponders, ServiceError, StreamMissing, StreamReplaced
from morphogen.bus.frames import frames
from morphogen.bus.past import past
from morphogen.bus.requests import call, respond
from morphogen.bus.streams import LOG, stream_info
from morphogen.schemas import Event, decode_event

from .chains import as_int32, check
from .errors import BadQuestion, NoIndex
from .holders import Match
from .prefix_index import PrefixIndex
from .waiting import log_there, patiently

if TYPE_CHECKING:
    import numpy.typing as npt

    from morphogen.bus.connection import Connection
    from morphogen.bus.reader import Message
    from morphogen.bus.settings import Settings

SUBJECT = "morphogen.kv_index.prefix"
FAMILY = "kv"
MOST_TOKENS = 1 << 20  # of one question

_TOO_LONG = f"a prompt of more than {MOST_TOKENS:,} tokens, or than the broker takes: ask with its beginning"

_log = logging.getLogger("morphogen.kv")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A lookup as it travels: `tokens` are the bytes of a little-endian int32 array."""

    tokens: bytes
    root: str | None = None
    block: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, as of the log's message `seq`, among how many blocks."""

    match: Match
    seq: int
    blocks: int


_question = msgspec.msgpack.Decoder(Question)
_answer = msgspec.msgpack.Decoder(Answer)


class IndexServer:
    """Follows the log's KV events and answers lookups; `ready` is set once all that the log held at the start is folded.

    Lookups are answered from the start on, of as much as is folded by then; the answer says how much that is.
    """

    def __init__(self, conn: "Connection", settings: "Settings") -> None:
        self._conn, self._settings = conn, settings
        self.index = PrefixIndex()
        self.seq = 0
        self._epoch: str | None = None
        self.answered = 0
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled; a broker that is away is waited for, and a log that was made anew is read from its start."""
        responder = await respond(self._conn, SUBJECT, self._reply)
        try:
            while True:
                try:
                    await patiently(self._conn, self._follow, "the index")
                except (StreamReplaced, StreamMissing) as error:
                    _log.warning("%s; folding the log that is there now", error)
        finally:
            await responder.close()

    async def _follow(self) -> None:
        epoch = await log_there(self._conn)
        if epoch != self._epoch:
            self.index, self.seq, self._epoch = PrefixIndex(), 0, epoch
        end = (await stream_info(self._conn, LOG)).last_seq
        async for batch in past(self._conn, self._settings, after=self.seq, upto=end, family=FAMILY):
            await self._fold(batch)
        self.seq = max(self.seq, end)
        self.ready.set()
        async for batch in past(self._conn, self._settings, after=self.seq, family=FAMILY, follow=True):
            await self._fold(batch)

    async def _fold(self, batch: "Sequence[Message]") -> None:
        for message in batch:
            self.take(message)
            await asyncio.sleep(0)  # a question may come between two messages
        self.seq = max(self.seq, batch[-1].seq)

    def take(self, message: "Message") -> None:
        """Fold one message of the log; what cannot be read is passed over, what was re-published is not news."""
        for frame in frames([message]):
            if frame.replay is not None:
                continue
            for record in frame.records:
                event = decode_event(record.type, record.version, record.body)
                if isinstance(event, Event):
                    self.index.take(event)

    async def _reply(self, payload: bytes) -> bytes:
        try:
            question = _question.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadQuestion(f"no question: {' '.join(str(error).split())}") from error
        if len(question.tokens) > 4 * MOST_TOKENS:
            raise BadQuestion(_TOO_LONG)
        match = self.index.longest_prefix(question.tokens, root=question.root, block=question.block)
        self.answered += 1
        return msgspec.msgpack.encode(Answer(match=match, seq=self.seq, blocks=len(self.index)))


async def ask(
    conn: "Connection",
    tokens: "Sequence[int] | npt.NDArray[Any] | bytes",
    *,
    root: str | None = None,
    block: int | None = None,
    timeout: float = 5.0,
) -> Answer:
    """Ask the process that serves the index. Raises NoIndex where none does, BadQuestion, RequestTimeout."""
    check(root, block)
    packed = as_int32(tokens).astype("<i4", copy=False).tobytes()
    if len(packed) > 4 * MOST_TOKENS:
        raise BadQuestion(_TOO_LONG)
    question = msgspec.msgpack.encode(Question(tokens=packed, root=root, block=block))
    try:
        reply = await call(conn, SUBJECT, question, timeout)
    except NoResponders:
        raise NoIndex("nobody answers who holds which prefix: start `morphogen serve kv-index`") from None
    except MessageTooLarge:
        raise BadQuestion(_TOO_LONG) from None
    except ServiceError as error:
        if error.kind != BadQuestion.__name__:
            raise
        raise BadQuestion(str(error)) from None
    return _answer.decode(reply)


async def longest_prefix(
    conn: "Connection",
    tokens: "Sequence[int] | npt.NDArray[Any] | bytes",
    *,
    root: str | None = None,
    block: int | None = None,
    timeout: float = 5.0,
) -> Match:
    """Return the longest prefix that somebody holds, and who, as the serving process knows it; see `ask`."""
    return (await ask(conn, tokens, root=root, block=block, timeout=timeout)).match
