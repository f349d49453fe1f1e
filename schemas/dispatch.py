"""Which way a goal was pursued, why the other ways lost, and what it cost."""

from typing import Any

import msgspec

from .event import Event


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """A mode that was weighed. `reason` says why it lost, or why it was taken."""

    mode: str
    taken: bool
    reason: str
    confidence: float | None = None  # calibrated probability of success
    expected_microusd: int | None = None
    expected_ns: int | None = None


class DispatchDecided(Event, type="dispatch.decided", version=1):
    """A mode was chosen for a request. `method` says how the past was matched: exact, embedding or none."""

    request: str
    goal: str
    signature: str
    mode: str
    method: str
    reason: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    matched: str | None = None  # the family that the request was matched to
    similarity: float | None = None
    confidence: float | None = None
    execution: str | None = None  # the one that is followed, or that guides
    tool: str | None = None
    tool_version: int | None = None
    alternatives: list[Alternative] = msgspec.field(default_factory=list)
    thresholds: dict[str, float] = msgspec.field(default_factory=dict)
    budget_microusd: int | None = None
    match_ns: int = 0
    by: str = ""  # the process that serves it: host, pid and its start, so that one that was killed is known later


class DispatchFellBack(Event, type="dispatch.fell_back", version=1):
    """A mode did not do it; the next one is tried. `guard` names the tool's guard that was missed, if that is why."""

    request: str
    mode: str
    to: str | None  # None where no other mode is left
    reason: str
    guard: str | None = None
    refused: bool = False  # it saw by itself that it should not: no failure of the mode
    done: list[str] = msgspec.field(default_factory=list)  # what it changed in the world before it stopped, as calls
    execution: str | None = None
    duration_ns: int = 0
    cost_microusd: int | None = None


class DispatchCompared(Event, type="dispatch.compared", version=1):
    """What a cheaper mode would have done was compared with what was done, on paper: nothing was called twice.

    By these outcomes likeness and modes are calibrated. `matched` is the family that was followed on paper.
    """

    request: str
    signature: str
    matched: str
    mode: str
    method: str  # exact | embedding
    agreed: bool
    reason: str = ""
    similarity: float | None = None
    execution: str | None = None  # the one that would have been followed


class DispatchFinished(Event, type="dispatch.finished", version=1):
    """A request was served, or not, by `mode` in the end. Cost and duration are of all that was tried for it.

    Cost saved is against the mean of the learner's recorded runs of this family, time against that of the requests which it
    served, first to last (its recorded runs where it served none); None where there are none.
    """

    request: str
    signature: str
    mode: str
    ok: bool
    execution: str | None = None
    tool: str | None = None
    tool_version: int | None = None
    error: str | None = None
    duration_ns: int = 0
    cost_microusd: int | None = None
    saved_microusd: int | None = None
    saved_ns: int | None = None
