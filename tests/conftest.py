"""Fixtures that every test shares: a data folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point MORPHOGEN_HOME at a fresh folder, so that no test sees the user's data."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("MORPHOGEN_HOME", str(folder))
    for name in ("MORPHOGEN_URL", "MORPHOGEN_CREDS", "MORPHOGEN_TOKEN", "MORPHOGEN_RUN", "MORPHOGEN_ATTEMPT", "MORPHOGEN_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield folder
