"""All tools, their versions and what became of them: a fold over the log, in its order, and nothing else.

Events that do not fit (a version that nobody registered, an illegal move, a number told twice) change nothing and are kept in
`refused`, so that a damaged or hostile log cannot make a tool active. Two registries that saw the same events are equal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from morphogen.consumers.executions import tool_name
from morphogen.schemas import (
    CrystalChecked,
    CrystalDrafted,
    CrystalFailed,
    CrystalInvoked,
    CrystalMoved,
    CrystalRegistered,
    CrystalRequested,
    CrystalShadowed,
    Event,
)

from .moves import BIRTH, refusal

_REFUSED_KEPT = 100


@dataclass(frozen=True)
class Version:
    """One version: the event that registered it, where it stands, and what was counted. Times are nanoseconds."""

    made: CrystalRegistered
    state: str = BIRTH
    reason: str = ""  # of its newest move
    shadows: int = 0
    agreed: int = 0
    calls: int = 0
    successes: int = 0
    misses: dict[str, int] = field(default_factory=dict)  # by guard
    duration_ns: int = 0  # of all its calls
    cpu_ns: int = 0

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self.made.tool

    @property
    def number(self) -> int:
        """The version's number, from 1."""
        return self.made.number

    @property
    def signature(self) -> str:
        """The family that it serves."""
        return self.made.signature

    @property
    def missed(self) -> int:
        """How often a guard kept it from being called."""
        return sum(self.misses.values())


@dataclass(frozen=True)
class Tool:
    """A tool: its versions by number, and the one that is called."""

    name: str
    signature: str
    versions: dict[int, Version]
    active: int | None = None

    @property
    def newest(self) -> Version:
        """The version with the highest number."""
        return self.versions[max(self.versions)]


@dataclass(frozen=True)
class Attempt:
    """One try to make a tool, as far as it came. `version` is (tool, number) where one was registered."""

    id: str
    requested: CrystalRequested | None = None
    drafted: CrystalDrafted | None = None
    checked: tuple[CrystalChecked, ...] = ()
    failed: CrystalFailed | None = None
    version: tuple[str, int] | None = None

    @property
    def done(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.failed is not None or self.version is not None


class Registry:
    """The fold. Read `tools` (by name) and `attempts` (by id); write with `seen` only."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.tools: dict[str, Tool] = {}
        self.attempts: dict[str, Attempt] = {}
        self.refused: list[str] = []  # newest last, bounded
        self.refusals = 0
        for event in events:
            self.seen(event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registry) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def seen(self, event: Event) -> None:
        """Take one event; what is not about tools is passed over."""
        match event:
            case CrystalRegistered():
                self._registered(event)
            case CrystalMoved():
                self._moved(event)
            case CrystalInvoked():
                self._invoked(event)
            case CrystalShadowed():
                self._shadowed(event)
            case CrystalRequested() | CrystalDrafted() | CrystalChecked() | CrystalFailed():
                self._attempted(event)

    def of(self, signature: str) -> Tool | None:
        """Return the tool of a family, or None."""
        found = self.tools.get(tool_name(signature))
        return found if found is not None and found.signature == signature else None

    def version(self, tool: str, number: int) -> Version | None:
        """Return a version, or None."""
        found = self.tools.get(tool)
        return None if found is None else found.versions.get(number)

    def active(self, signature: str) -> Version | None:
        """Return the version that is called for a family, or None."""
        tool = self.of(signature)
        return None if tool is None or tool.active is None else tool.versions[tool.active]

    def shadow(self, signature: str) -> Version | None:
        """Return the newest version that runs beside the live mode for a family, or None."""
        tool = self.of(signature)
        waiting = [] if tool is None else [one for one in tool.versions.values() if one.state == "shadow"]
        return max(waiting, key=lambda one: one.number, default=None)

    def snapshot(self) -> dict[str, Any]:
        """Return all of it as plain data, in order, so that two registries can be compared across processes."""
        return {
            "tools": {
                name: {
                    "signature": tool.signature,
                    "active": tool.active,
                    "versions": {
                        str(number): {
                            "made": msgspec.to_builtins(one.made),
                            "state": one.state,
                            "reason": one.reason,
                            "shadows": one.shadows,
                            "agreed": one.agreed,
                            "calls": one.calls,
                            "successes": one.successes,
                            "misses": dict(sorted(one.misses.items())),
                            "duration_ns": one.duration_ns,
                            "cpu_ns": one.cpu_ns,
                        }
                        for number, one in sorted(tool.versions.items())
                    },
                }
                for name, tool in sorted(self.tools.items())
            },
            "attempts": {
                key: {
                    "requested": msgspec.to_builtins(one.requested),
                    "drafted": msgspec.to_builtins(one.drafted),
                    "checked": [msgspec.to_builtins(stage) for stage in one.checked],
                    "failed": msgspec.to_builtins(one.failed),
                    "version": None if one.version is None else list(one.version),
                }
                for key, one in sorted(self.attempts.items())
            },
            "refusals": self.refusals,
        }

    def _registered(self, event: CrystalRegistered) -> None:
        tool = self.tools.get(event.tool)
        if event.number < 1 or event.tool != tool_name(event.signature):
            self._refuse(
                f"{event.tool} version {event.number} of {event.signature}: the name or the number is no tool's"
            )
        elif tool is not None and tool.signature != event.signature:
            self._refuse(f"{event.tool} version {event.number}: {event.signature} is not the family of the tool")
        elif tool is not None and event.number in tool.versions:
            if tool.versions[event.number].made != event:
                self._refuse(f"{event.tool} version {event.number} is registered already, and differs")
        else:
            versions = {} if tool is None else tool.versions
            active = None if tool is None else tool.active
            self.tools[event.tool] = Tool(
                event.tool, event.signature, {**versions, event.number: Version(event)}, active
            )
            self._attempt(event.attempt, version=(event.tool, event.number))

    def _moved(self, event: CrystalMoved) -> None:
        where = f"{event.tool} version {event.number}"
        tool, one = self.tools.get(event.tool), self.version(event.tool, event.number)
        if tool is None or one is None:
            return self._refuse(f"{where}: nobody has registered it")
        why = refusal(one.state, event.now)
        if why is None and event.was != one.state:
            why = f"it is {one.state}, not {event.was}"
        if why is None and event.now == "active" and tool.active is not None:
            why = f"version {tool.active} is active"
        if why is not None:
            return self._refuse(f"{where}: {why}")
        left = None if tool.active == event.number else tool.active
        active = event.number if event.now == "active" else left
        moved = replace(one, state=event.now, reason=event.reason)
        self.tools[tool.name] = replace(tool, versions={**tool.versions, one.number: moved}, active=active)
        return None

    def _invoked(self, event: CrystalInvoked) -> None:
        one = self.version(event.tool, event.number)
        if one is None:
            return self._refuse(f"{event.tool} version {event.number}: nobody has registered it, yet it was called")
        if event.guard is not None:
            return self._put(replace(one, misses={**one.misses, event.guard: one.misses.get(event.guard, 0) + 1}))
        return self._put(
            replace(
                one,
                calls=one.calls + 1,
                successes=one.successes + event.ok,
                duration_ns=one.duration_ns + event.duration_ns,
                cpu_ns=one.cpu_ns + event.cpu_ns,
            )
        )

    def _shadowed(self, event: CrystalShadowed) -> None:
        one = self.version(event.tool, event.number)
        if one is None:
            return self._refuse(f"{event.tool} version {event.number}: nobody has registered it, yet it ran beside")
        return self._put(replace(one, shadows=one.shadows + 1, agreed=one.agreed + event.agreed))

    def _attempted(self, event: CrystalRequested | CrystalDrafted | CrystalChecked | CrystalFailed) -> None:
        was = self.attempts.get(event.attempt, Attempt(event.attempt))
        match event:
            case CrystalRequested():
                self._attempt(event.attempt, requested=was.requested or event)
            case CrystalDrafted():
                self._attempt(event.attempt, drafted=was.drafted or event)
            case CrystalChecked():
                others = tuple(one for one in was.checked if one.stage != event.stage)  # told again: the newest counts
                self._attempt(event.attempt, checked=(*others, event))
            case CrystalFailed():
                self._attempt(event.attempt, failed=was.failed or event)

    def _attempt(self, key: str, **changes: Any) -> None:
        self.attempts[key] = replace(self.attempts.get(key, Attempt(key)), **changes)

    def _put(self, one: Version) -> None:
        tool = self.tools[one.tool]
        self.tools[tool.name] = replace(tool, versions={**tool.versions, one.number: one})

    def _refuse(self, why: str) -> None:
        self.refusals += 1
        self.refused = [*self.refused, why][-_REFUSED_KEPT:]
