"""Fixtures that every test shares: a data folder of its own, and a broker that is gone when the test is.

A test that only asks, or that writes under names of its own, may stand `at_lasting`: one broker for all such tests of
a module. Starting a broker and making a store take most of a second.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from morphogen.bus import Bus
from morphogen.bus import broker as brokers
from morphogen.bus.broker import Endpoint
from morphogen.bus.broker.state import BrokerFiles, holders
from morphogen.bus.settings import Settings

from .ready_stores import from_nothing, lay_ready

# Machines that run tests are busy: a slow example is no fault. The gate asks the same examples each time, so that who
# breaks something learns it; `make fuzz` goes looking for new ones.
_PATIENT = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile("gate", _PATIENT, derandomize=True, database=None)
hypothesis_settings.register_profile("fuzz", _PATIENT)
hypothesis_settings.load_profile("gate")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point MORPHOGEN_HOME at a fresh folder, so that no test sees the user's data."""
    folder = tmp_path_factory.mktemp("home")
    _live_in(folder, monkeypatch)
    lay_ready()
    return folder


@pytest.fixture
def stores_from_nothing() -> Iterator[None]:
    """Let this test's stores be made as users make them, and not copied."""
    with from_nothing():
        yield


def _live_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point MORPHOGEN_HOME at a folder, and take away what else the environment says."""
    monkeypatch.setenv("MORPHOGEN_HOME", str(folder))
    names = ("URL", "CREDS", "TOKEN", "RUN", "ATTEMPT", "RANK", "SPOOL_LIMIT", "DEBUG")
    for name in (*(f"MORPHOGEN_{name}" for name in names), "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)


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


@pytest.fixture
def trimmed() -> Callable[[Bus], None]:
    """What archives all that the log holds and lets the log forget it, as days later."""
    from morphogen.replay.archive import archive

    def trim(bus: Bus) -> None:
        later = time.time_ns() + 30 * 86_400_000_000_000
        bus.run(archive(bus.conn, bus.conn.settings, trim_log=True, keep=0, now_ns=later))
        assert bus.stream_info().messages == 0

    return trim


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of an embedded broker that runs until the last test of the module is over, where one has started it."""
    with pytest.MonkeyPatch.context() as patch:
        _live_in(tmp_path_factory.mktemp("lasting"), patch)
        found = Settings.from_environ()
    yield found
    brokers.down(found)
    assert holders(BrokerFiles(found.broker_dir).alive_lock) == []


@pytest.fixture
def at_lasting(lasting: Settings, home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of the module's broker, at which this test and the processes that it starts find themselves."""
    _live_in(lasting.home, monkeypatch)
    return lasting
