"""Blocking calls beside an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(call: Callable[[], _T]) -> _T:
    """Run a blocking call in a daemon thread: unlike an executor's, it never holds up the end of the process."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    # Both wait for the thread's last steps: one that the end of the process overtakes would keep what it holds for ever.
    def succeed(value: _T) -> None:
        thread.join()
        if not result.done():
            result.set_result(value)

    def fail(error: BaseException) -> None:
        thread.join()
        if not result.done():
            result.set_exception(error)

    def work() -> None:
        # The loop may have ended meanwhile; then nobody waits.
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001  (handed to the one who waits)
            if isinstance(error, StopIteration):  # which no future takes
                error = RuntimeError(f"the call raised {error!r}")
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(fail, error)
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(succeed, value)

    thread = threading.Thread(target=work, name="morphogen aside", daemon=True)
    thread.start()
    return await result
