"""Replies under way: each a task that has the computing thread for some milliseconds at a time, and any number of readers.

A reader who is slow, or gone, holds nobody up: the text is kept until the turn ends, and read from any character on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from .continuity import Session
from .errors import NoRoomLeft
from .house import House
from .wire import Bit

_T = TypeVar("_T")
Lane = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a call in the thread that computes, and returns its result."""

_SLICE = 0.005  # seconds of the computing thread at a time
_PAUSE = 0.05  # seconds after which a reply that was put aside looks for room again


class Turn:
    """One reply of a session. `run` it in a task; `stop` it between two tokens; `follow` it from anywhere."""

    def __init__(self, house: House, session: Session, lane: Lane, *, text: str = "") -> None:
        self.session = session
        self._house = house
        self.text = text
        self.finish: str | None = None
        self.tokens = 0
        self.error: Exception | None = None
        self.moved: tuple[str, str] | None = None
        self._lane = lane
        self._news = asyncio.Event()
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Make tokens until the reply ends, or `stop` is called. Never raises; readers are told.

        Where those at work leave no room for it, it waits until they are done.
        """
        self._stopping = False
        self._idle.clear()
        try:
            while not self._stopping and self.finish is None:
                text, finish, tokens, aside = await self._lane(lambda: slice_of(self._house, self.session, _SLICE))
                self.text += text
                self.finish, self.tokens = finish, tokens
                self._tell()
                if aside:
                    await asyncio.sleep(_PAUSE)
        except Exception as error:  # noqa: BLE001  it is the readers' to know
            self.error = error
        finally:
            self._idle.set()
            self._tell()

    async def stop(self) -> None:
        """End after the token that is being made; the reply stays pending."""
        self._stopping = True
        await self._idle.wait()

    def move(self, worker: str, session: str) -> None:
        """Tell the readers that the session goes on at another worker."""
        self.moved = (worker, session)
        self._tell()

    def fail(self, error: Exception) -> None:
        """Tell the readers that nothing will come any more."""
        self.error = error
        self._tell()

    @property
    def over(self) -> bool:
        """Whether nothing will follow."""
        return self.finish is not None or self.moved is not None or self.error is not None

    async def follow(self, since: int = 0) -> AsyncIterator[Bit]:
        """Yield what there is from character `since` on, and then what comes."""
        at = max(0, since)
        while True:
            news = self._news
            if text := self.text[at:]:
                yield Bit(at=at, text=text)
                at += len(text)  # and not to its end: it may have grown while the reader had this bit
                continue
            if self.finish is not None:
                yield Bit(at=at, finish=self.finish, tokens=self.tokens)
                return
            if self.moved is not None:
                yield Bit(at=at, moved=self.moved[0], session=self.moved[1])
                return
            if self.error is not None:
                raise self.error
            await news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def slice_of(house: House, session: Session, seconds: float) -> tuple[str, str | None, int, bool]:
    """Make tokens for some time; return their text, how the reply ended if it did, how many tokens there are.

    Last, whether those at work leave no room, and the session was put aside until they are done.
    """
    end = time.perf_counter() + seconds
    pieces: list[str] = []
    aside = not house.seats.resume(session)
    while not aside:
        try:
            piece = session.step()
        except NoRoomLeft:
            house.seats.park(session)
            aside = True
            continue
        if piece:
            pieces.append(piece)
        if not session.pending:
            return "".join(pieces), session.finish or "stop", len(session.conversation.tokens), False
        if time.perf_counter() >= end:
            break
    return "".join(pieces), None, len(session.conversation.tokens), aside
