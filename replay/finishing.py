"""Blocking work beside the event loop that is never left half done."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def finish(call: Callable[..., _T], *args: object) -> _T:
    """Run a blocking call in a thread; when cancelled, wait for its end first."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen: who cancelled it is not told of it
        raise
