"""Talk to workers: who is there, what does it say; a reply is followed wherever its session goes."""

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from morphogen.bus.errors import BusError
from morphogen.bus.requests import call, call_stream
from morphogen.schemas.kv import worker_subject

from .sampling import Sampling
from .wire import GENERATE, HAS, INFO, SAY, STANDS, Ask, Bit, Had, Has, Info, Said, Say, Stands, Stood, pack, unpack

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection


async def info(conn: "Connection", worker: str, *, timeout: float = 5.0) -> Info:
    """Return what a worker is and holds. Raises NoResponders where there is none of that name."""
    return unpack(await call(conn, worker_subject(worker, INFO), timeout=timeout), Info)


async def whereabouts(conn: "Connection", worker: str, *, timeout: float = 2.0) -> Info | None:
    """Return what a worker is and holds; None where it does not answer."""
    with contextlib.suppress(BusError):
        return await info(conn, worker, timeout=timeout)
    return None


async def has(conn: "Connection", worker: str, session: str, handoff: str, *, timeout: float = 2.0) -> bool | None:
    """Return whether a session came to a worker by a handoff, wherever it is now; None where that one does not answer."""
    with contextlib.suppress(BusError):
        asked = pack(Has(session=session, handoff=handoff))
        return unpack(await call(conn, worker_subject(worker, HAS), asked, timeout=timeout), Had).here
    return None


async def stands(conn: "Connection", worker: str, attempt: str, *, timeout: float = 2.0) -> bool:
    """Return whether an offer of a worker stands, and does so for good; False where that one does not answer."""
    with contextlib.suppress(BusError):
        asked = pack(Stands(attempt=attempt))
        return unpack(await call(conn, worker_subject(worker, STANDS), asked, timeout=timeout), Stood).stands
    return False


async def say(
    conn: "Connection",
    worker: str,
    session: str,
    text: str,
    *,
    role: str = "user",
    compute: bool = False,
    timeout: float = 60.0,
) -> Said:
    """Append a message to a session, which begins with it if need be; with `compute` the model reads it at once."""
    message = Say(session=session, text=text, role=role, compute=compute)
    return unpack(await call(conn, worker_subject(worker, SAY), pack(message), timeout), Said)


async def generate(
    conn: "Connection",
    worker: str,
    session: str,
    text: str | None = None,
    *,
    role: str = "user",
    max_tokens: int = 256,
    sampling: Sampling | None = None,
    stop: tuple[str, ...] = (),
    resume: bool = False,
    since: int = 0,
    timeout: float = 60.0,
) -> AsyncGenerator[Bit, None]:
    """Yield a reply bit by bit; where the session is handed over in the middle of it, it is followed there.

    The last bit says how it ended. `resume` begins nothing: it follows, or carries on, what is pending, from character
    `since` on. Raises as `call_stream` does; a ServiceError carries the worker's own words.
    """
    ask = Ask(
        session=session,
        say=text,
        role=role,
        max_tokens=max_tokens,
        sampling=sampling or Sampling(),
        stop=stop,
        resume=resume,
        since=since,
    )
    at = since
    while True:
        moved: Bit | None = None
        stream = call_stream(conn, worker_subject(worker, GENERATE), pack(ask), timeout=timeout)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                bit = unpack(chunk, Bit)
                if bit.moved is not None:
                    moved = bit
                    break
                at = bit.at + len(bit.text)
                yield bit
        if moved is None or moved.moved is None:
            return
        worker = moved.moved
        ask = Ask(session=moved.session or ask.session, resume=True, since=at)
