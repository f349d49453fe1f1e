"""The life of a run: started, finished, failed."""

from typing import Any

import msgspec

from .event import Event


class RunStarted(Event, type="run.started", version=1):
    """An attempt of a run begins: with what configuration, from which code, on which machine."""

    config: dict[str, Any] = msgspec.field(default_factory=dict)
    host: str | None = None
    hosts: list[str] = msgspec.field(default_factory=list)
    pid: int | None = None
    argv: list[str] = msgspec.field(default_factory=list)
    git_commit: str | None = None
    git_dirty: bool | None = None
    python: str | None = None
    platform: str | None = None
    packages: dict[str, str] = msgspec.field(default_factory=dict)
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    world_size: int | None = None


class RunFinished(Event, type="run.finished", version=1):
    """An attempt ended as its program meant it to."""

    duration: float | None = None  # seconds


class RunFailed(Event, type="run.failed", version=1):
    """An attempt ended by an exception or a signal."""

    error: str
    message: str
    traceback: str | None = None
    duration: float | None = None  # seconds
