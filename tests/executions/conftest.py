"""An outlet in memory, and tools that a test may use."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.settings import Settings
from morphogen.consumers.executions import At, Families
from morphogen.kernels.sandbox import Capabilities, Declared, Workspace
from morphogen.schemas import Event, decode_event


@dataclass
class Told:
    """What was told, in order, as it would be read back; `blobs` are values that were kept apart."""

    settings: Settings = field(default_factory=Settings.from_environ)
    events: list[Event] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    broker: bool = True

    def tell(self, event: Event, cause: str | None = None) -> str | None:
        read = decode_event(event.type, event.version, event.encode())
        assert isinstance(read, Event)
        self.events.append(read)
        return f"id.{len(self.events)}"

    def keep(self, data: bytes) -> str | None:
        import hashlib

        if not self.broker:
            return None
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return name

    def families(self) -> Families:
        found = Families()
        for at, event in enumerate(self.events, 1):
            found.seen(event, At(at, 0, at))
        return found


@pytest.fixture
def told() -> Told:
    """Where a test's events go."""
    return Told()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with a small table and a large text."""
    (tmp_path / "shop.csv").write_text("price\n1\n2\n")
    (tmp_path / "large.txt").write_text("x" * 40_000)
    return tmp_path


@pytest.fixture
def tools(workspace: Path) -> Capabilities:
    """Files of the workspace, and a few functions."""

    def fails(reason: str) -> None:
        raise ValueError(reason)

    def many(*items: Any, **named: Any) -> list[Any]:
        return [*items, named]

    declared: dict[str, Declared | Callable[..., Any]] = {
        "calc.add": Declared(lambda a, b=1: a + b, "pure"), "fails": fails, "many": Declared(many, "read"),
    }  # fmt: skip
    return Capabilities(files=Workspace(workspace, write=True), tools=declared)
