"""The loop that seldom asks the system hears everything all the same, and soon."""

import asyncio
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from morphogen.bus import loop as loops
from morphogen.bus.loop import new_loop


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        yield runner


def test_who_never_rests_keeps_no_socket_waiting(runner: asyncio.Runner) -> None:
    async def story() -> int:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(right, heard.set)
        left.send(b"x")
        turns = 0
        while not heard.is_set():
            await asyncio.sleep(0)  # something is always ready to be run
            turns += 1
        loop.remove_reader(right)
        left.close()
        right.close()
        return turns

    assert runner.run(story()) <= 2 * loops._TURNS


def test_timers_and_threads_and_signals_are_heard_beside_one_who_never_rests(runner: asyncio.Runner) -> None:
    async def story() -> list[str]:
        loop, heard = asyncio.get_running_loop(), []
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "signal")
        loop.call_later(0.02, heard.append, "timer")
        thread = asyncio.create_task(asyncio.to_thread(time.sleep, 0.03))
        thread.add_done_callback(lambda _: heard.append("thread"))
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(20):
            while len(heard) < 3:
                await asyncio.sleep(0)
        loop.remove_signal_handler(signal.SIGUSR1)
        return heard

    assert runner.run(story()) == ["signal", "timer", "thread"]


def test_the_system_is_asked_more_seldom(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    real = selectors.DefaultSelector.select

    def counted(self: selectors.DefaultSelector, timeout: float | None = None) -> object:
        nonlocal asked
        asked += 1
        return real(self, timeout)

    async def story() -> None:
        for _ in range(900):
            await asyncio.sleep(0)

    monkeypatch.setattr(selectors.DefaultSelector, "select", counted)
    runner.run(story())
    assert asked < 900 / loops._TURNS + 20
