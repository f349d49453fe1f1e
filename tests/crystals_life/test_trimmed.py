"""A log that was trimmed, or that breaks off while it is read: the crystallizer knows what it knew, and counts it once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from morphogen.bus import Bus, Seen
from morphogen.bus.errors import Disconnected, LogGap
from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer.past import Past
from morphogen.kernels.sandbox import Sandbox

from .kit import GOOD, SIGNATURE, Drafting, record
from .test_worker import shadowed, worker


def test_a_trimmed_log_loses_no_tool_no_career_and_no_money_that_was_spent(
    bus: Bus, settings: Settings, sandbox: Sandbox, trimmed: Callable[[Bus], None]
) -> None:
    record(settings, range(12))
    at = worker(bus, settings, sandbox, Drafting(GOOD))
    at.make(SIGNATURE, maker="llm")
    shadowed(at, 1, 8)
    at.round()
    trimmed(bus)
    record(settings, range(12, 14))

    whole = Past()
    assert whole.catch_up(bus) > 0
    at.catch_up()
    assert whole.registry.snapshot() == at.past.registry.snapshot()
    assert whole.careers.versions == at.past.careers.versions
    assert whole.spending == at.past.spending
    assert whole.spending.since(0) == 1000
    assert whole.moves == at.past.moves
    family = whole.families.family(SIGNATURE)
    assert family is not None
    assert family.uses == 14
    again = worker(bus, settings, sandbox, Drafting(GOOD.replace("Price pieces", "Price all pieces")))
    assert again.make(SIGNATURE, maker="llm").number == 2


def test_without_the_archive_of_a_trimmed_log_it_is_said_where_that_belongs(
    bus: Bus, settings: Settings, sandbox: Sandbox, trimmed: Callable[[Bus], None]
) -> None:
    record(settings, range(2))
    trimmed(bus)
    record(settings, range(2, 3))
    settings.archive_dir.rename(settings.home / "elsewhere")

    past = Past()
    with pytest.raises(LogGap, match=r"messages 1-\d+ are in neither .* copy it there from the machine that trims"):
        past.catch_up(bus)
    (settings.home / "elsewhere").rename(settings.archive_dir)
    past.catch_up(bus)
    family = past.families.family(SIGNATURE)
    assert family is not None
    assert family.uses == 3


def test_a_reading_that_broke_off_is_gone_on_with_and_nothing_counts_twice(
    bus: Bus, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, range(12))
    at = worker(bus, settings, sandbox, Drafting(GOOD))
    at.make(SIGNATURE, maker="llm")
    shadowed(at, 1, 8)
    at.round()
    whole = bus.past
    reached: dict[Any, tuple[int, int]] = {}

    def failing(**what: Any) -> Iterator[Seen]:
        for seen in whole(**what):
            yield seen
            if seen.place > reached.get(what["family"], (0, 0)):
                reached[what["family"]] = seen.place
                raise Disconnected("the broker went away")

    monkeypatch.setattr(bus, "past", failing)
    broken, failures = Past(), 0
    while broken.position == 0 and failures < 500:
        try:
            broken.catch_up(bus)
        except Disconnected:
            failures += 1
    assert 20 < failures < 500
    assert broken.careers.versions == at.past.careers.versions
    assert broken.spending == at.past.spending
    assert broken.moves == at.past.moves
