"""Fixtures of the bus: settings over the test's own data folder, and a broker that is gone when the test is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from morphogen.bus import broker as brokers
from morphogen.bus.broker import Endpoint
from morphogen.bus.broker_state import BrokerFiles, holders
from morphogen.bus.settings import Settings


@pytest.fixture
def settings(home: Path) -> Iterator[Settings]:
    """Settings of an embedded broker that is stopped, if the test has started one, when the test ends."""
    found = Settings.from_environ()
    assert found.home == home
    yield found
    brokers.down(found)
    assert holders(BrokerFiles(found.broker_dir).alive_lock) == []


@pytest.fixture
def broker(settings: Settings) -> Endpoint:
    """A running embedded broker."""
    return brokers.ensure(settings)
