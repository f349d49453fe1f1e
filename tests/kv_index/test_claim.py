"""One process at a broker writes of a publisher: a second one is told so, and writes nothing."""

import asyncio
from collections.abc import Callable

import pytest

from morphogen.bus import Bus, Settings
from morphogen.consumers.kv_index import Endpoint, Listener, NotListening

from .listening import Listening, stored
from .publishers import Publisher


def listener(bus: Bus, settings: Settings, publisher: Publisher, *workers: str, engine: str = "fleet") -> Listener:
    """Return a listener to one publisher under a name each."""
    endpoints = [
        Endpoint(address=publisher.address, replay=publisher.replay_address, worker=worker) for worker in workers
    ]
    return Listener(bus.conn, settings, engine, endpoints)


@pytest.mark.parametrize("once", [True, False])
def test_a_second_listener_of_a_name_is_refused_and_nothing_is_twice(
    once: bool, bus: Bus, settings: Settings, publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher)
    publisher.send(stored(0))
    listening.wait_for(1)

    with pytest.raises(NotListening, match="writes of worker 'w' of engine 'fleet' already") as refused:
        bus.run(asyncio.wait_for(listener(bus, settings, publisher, "v", "w").run(once=once), 20))

    assert "\n" not in str(refused.value)
    publisher.send(stored(1))
    assert [event.event_id for event in listening.wait_for(2)] == [0, 1]
    listening.stop()
    bus.run(listener(bus, settings, publisher, "w").run(once=True))
    assert len(listening.events()) == 2


def test_other_names_and_other_engines_are_no_matter(
    bus: Bus, settings: Settings, publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    publisher.lose(stored(0))
    listen(publisher)

    bus.run(listener(bus, settings, publisher, "v").run(once=True))
    bus.run(listener(bus, settings, publisher, "w", engine="another").run(once=True))


def test_of_two_that_begin_at_once_one_listens(bus: Bus, settings: Settings, publisher: Publisher) -> None:
    publisher.lose(stored(0))
    two = [listener(bus, settings, publisher, "w") for _ in range(2)]

    async def both() -> list[BaseException | None]:
        return await asyncio.gather(*(one.run(once=True) for one in two), return_exceptions=True)

    outcomes = bus.run(both())

    assert sorted(type(one).__name__ for one in outcomes) == ["NoneType", "NotListening"]
    assert len(list(bus.events(run="kv.fleet", family="kv"))) == 1
