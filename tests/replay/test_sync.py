"""The blocking face does what the others do."""

from pathlib import Path

from morphogen.bus.settings import Settings
from morphogen.replay.sync import archive, rebuild, verify

from .conftest import Body, Callable, Connection, fill


def test_archive_rebuild_and_verify_without_an_event_loop(bus: Callable[[Body], None], home: Path) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(4))

    bus(body)
    settings = Settings(home=home)

    assert archive(settings).last == 12
    assert rebuild(settings, ["metrics"]).position == 12
    report = verify(settings)
    assert report.ok
    assert report.summary().endswith("all is as the log says")
