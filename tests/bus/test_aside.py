"""A call beside the loop gives back what it returned, or whatever it raised."""

import asyncio

import pytest

from morphogen.bus.aside import in_thread


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit])
def test_whoever_waits_gets_what_the_call_raised(kind: type[BaseException]) -> None:
    def call() -> None:
        raise kind("x")

    async def main() -> None:
        async with asyncio.timeout(10.0):
            await in_thread(call)

    with pytest.raises(RuntimeError if kind is StopIteration else kind):
        asyncio.run(main())


def test_the_value_comes_back() -> None:
    assert asyncio.run(in_thread(lambda: 7)) == 7
