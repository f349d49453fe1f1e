"""Readers of a reply under way: none misses a character, however slow it is."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.kv.service import Service
from morphogen.consumers.kv.turns import Turn


@settings(max_examples=50)
@given(st.lists(st.text("abc", max_size=3), max_size=8), st.lists(st.integers(0, 3), max_size=12), st.integers(0, 9))
def test_what_comes_while_a_reader_is_busy_is_not_lost(pieces: list[str], pauses: list[int], since: int) -> None:
    async def story() -> tuple[str, list[tuple[int, str]]]:
        turn = Turn(cast("Any", None), cast("Any", None), cast("Any", None))
        heard: list[tuple[int, str]] = []

        async def read() -> None:
            waits = iter(pauses)
            async for bit in turn.follow(since):
                if bit.text:
                    heard.append((bit.at, bit.text))
                for _ in range(next(waits, 0)):
                    await asyncio.sleep(0)  # the text grows meanwhile

        reader = asyncio.create_task(read())
        for piece in pieces:
            turn.text += piece
            turn._tell()
            await asyncio.sleep(0)
        turn.finish = "stop"
        turn._tell()
        await reader
        return turn.text, heard

    text, heard = asyncio.run(story())

    assert "".join(one for _, one in heard) == text[since:]
    assert all(text[at : at + len(one)] == one for at, one in heard)


def test_of_what_is_over_a_service_keeps_nothing_and_requests_about_one_session_wait_for_each_other() -> None:
    async def story() -> None:
        house, at_once = cast("Any", SimpleNamespace(busy=set())), 0

        async def lane(_: object) -> tuple[str, str, int, bool]:
            return "word", "stop", 3, False

        service = Service(cast("Any", None), house, lane, cast("Any", None), {})

        async def request(session: str) -> None:
            nonlocal at_once
            async with service.lock(session):
                at_once += 1
                await asyncio.sleep(0)
                assert at_once == 1
                at_once -= 1

        await asyncio.gather(*(request("s1") for _ in range(5)))
        turn = service.follow("s1", Turn(house, cast("Any", None), lane))
        assert (list(service.turns), house.busy) == (["s1"], {"s1"})
        assert [(bit.text, bit.finish) async for bit in turn.follow()] == [("word", None), ("", "stop")]

        assert (service.turns, house.busy, dict(service._locks)) == ({}, set(), {})

    asyncio.run(story())
