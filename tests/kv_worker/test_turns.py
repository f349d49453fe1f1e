"""Readers of a reply under way: none misses a character, however slow it is."""

import asyncio
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

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
