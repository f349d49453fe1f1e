"""The life of a crystallized tool: asked for, drafted, checked, registered, promoted, called, demoted.

A *tool* is named after the family whose goals it reaches; its versions count from 1 and are never changed. The text of a
version travels in the event that registers it, so the log alone brings every tool back.
"""

from typing import Any

import msgspec

from .event import Event

STATES = ("shadow", "active", "superseded", "demoted", "retired")
STAGES = ("parse", "grammar", "types", "sandbox_import", "replay", "property", "shadow", "promotion")


class Parameter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tool takes under a name: `type` is a Python annotation (`int`, `list[str]`)."""

    name: str
    type: str
    seen: tuple[Any, ...] = ()  # a few recorded values
    minimum: float | None = None  # of the recorded numbers, or lengths
    maximum: float | None = None


class Guard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must hold for a tool to be called: kind is `type`, `environment`, `precondition` or `world`; see the crystallizer."""

    kind: str
    subject: str
    expected: Any = None


class CrystalRequested(Event, type="crystal.requested", version=1):
    """A tool is to be made of a family. `held_out` executions are never shown to whoever makes it."""

    attempt: str
    signature: str
    tool: str
    by: str = "manual"  # manual | auto | again
    maker: str = "synthesis"  # synthesis | llm
    made_from: list[str] = msgspec.field(default_factory=list)
    held_out: list[str] = msgspec.field(default_factory=list)
    budget_microusd: int | None = None


class CrystalAsked(Event, type="crystal.asked", version=1):
    """A model is about to be asked for a text, for the `number`th time in an attempt (from 0); the reply is `llm.queried`.

    Where none follows, the call may have been made and paid for: `reserved_microusd`, the most that it can cost, counts.
    """

    attempt: str
    number: int
    prompt_sha256: str
    by: str = ""  # the backend's name
    reserved_microusd: int | None = None  # None where nobody can tell


class CrystalDrafted(Event, type="crystal.drafted", version=1):
    """A text was made. `program` is the typed program that it was written from, where there is one."""

    attempt: str
    source: str
    source_sha256: str
    program: Any = None
    entry: str = "run"
    params: list[Parameter] = msgspec.field(default_factory=list)
    returns: str = "Any"
    capabilities: list[str] = msgspec.field(default_factory=list)
    maker: str = "synthesis"
    doubts: list[str] = msgspec.field(default_factory=list)  # what the executions did not decide, a line each
    model: str | None = None
    cost_microusd: int | None = None
    duration_ns: int = 0


class CrystalChecked(Event, type="crystal.checked", version=1):
    """A stage of the gauntlet was passed, or not, on this evidence."""

    attempt: str
    stage: str  # of STAGES
    ok: bool
    reason: str = ""
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    tried: int = 0
    matched: int = 0
    duration_ns: int = 0
    layers: tuple[str, ...] = ()  # of isolation that held, where something was run


class CrystalFailed(Event, type="crystal.failed", version=1):
    """No tool came of an attempt; what was drafted is kept and never loaded."""

    attempt: str
    signature: str
    stage: str  # of STAGES, or `draft`
    reason: str


class CrystalRegistered(Event, type="crystal.registered", version=1):
    """A version of a tool exists. It begins in state `shadow`, and is called for nobody until it is promoted."""

    tool: str
    number: int
    signature: str
    attempt: str
    source: str
    source_sha256: str
    entry: str = "run"
    params: list[Parameter] = msgspec.field(default_factory=list)
    returns: str = "Any"
    guards: list[Guard] = msgspec.field(default_factory=list)
    capabilities: list[str] = msgspec.field(default_factory=list)
    effects: list[str] = msgspec.field(default_factory=list)
    limits: dict[str, float] = msgspec.field(default_factory=dict)
    parent: int | None = None
    signed: str | None = None  # ed25519 over what `source_sha256` and the rest say, in hex
    key: str | None = None  # fingerprint of the key
    provenance: dict[str, Any] = msgspec.field(default_factory=dict)  # executions, stages, where it was imported from


class CrystalShadowed(Event, type="crystal.shadowed", version=1):
    """A version ran beside the mode that served a request; its result was compared and thrown away."""

    tool: str
    number: int
    request: str
    agreed: bool
    reason: str = ""
    duration_ns: int = 0
    served_ns: int = 0  # by the mode that served


class CrystalMoved(Event, type="crystal.moved", version=1):
    """A version changes its state, on the evidence of `successes` in `trials`; `lower` is their 95% Wilson bound."""

    tool: str
    number: int
    was: str
    now: str  # of STATES
    reason: str
    trials: int = 0
    successes: int = 0
    lower: float | None = None


class CrystalInvoked(Event, type="crystal.invoked", version=1):
    """A version was called, or a guard kept it from being called (`guard`)."""

    tool: str
    number: int
    request: str
    ok: bool
    guard: str | None = None
    error: str | None = None
    duration_ns: int = 0
    cpu_ns: int = 0
    rss_bytes: int = 0
    layers: tuple[str, ...] = ()
