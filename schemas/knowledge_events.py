"""What becomes of knowledge in the log: modules that are loaded, facts that become true or false, rules that fire."""

from typing import Any

import msgspec

from .event import Event


class KnowledgeLoaded(Event, type="knowledge.loaded", version=1):
    """From here on these systems mean what this text says; a later text with a system of the same name takes its place.

    `used` holds the texts of all modules that it uses, by target; `sha256` covers them too.
    """

    name: str
    path: str
    sha256: str
    text: str
    systems: list[str] = msgspec.field(default_factory=list)
    used: dict[str, str] = msgspec.field(default_factory=dict)


class KnowledgeDropped(Event, type="knowledge.dropped", version=1):
    """A system is no longer followed; its items stay in the log."""

    system: str
    reason: str = ""


class _FactChanged(Event):
    """What both ways of changing say."""

    fact: str
    system: str
    key: dict[str, Any] = msgspec.field(default_factory=dict)
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    place: list[int] = msgspec.field(default_factory=list)
    sha256: str = ""


class FactBecameTrue(_FactChanged, type="fact.became_true", version=1):
    """A fact holds from this item on, in the run of the envelope, for the subject that `key` names.

    `place` is where the item stands: sequence, index in its frame, part of the event. The cause is the item's event.
    """


class FactBecameFalse(_FactChanged, type="fact.became_false", version=1):
    """A fact that held does not hold any more from this item on."""


class RuleFired(Event, type="rule.fired", version=1):
    """All conditions of a rule came to hold. `actions` is what it says to do, by its own keys."""

    rule: str
    system: str
    key: dict[str, Any] = msgspec.field(default_factory=dict)
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    actions: dict[str, Any] = msgspec.field(default_factory=dict)
    place: list[int] = msgspec.field(default_factory=list)
    sha256: str = ""


class RuleAdvice(Event, type="rule.advice", version=1):
    """A rule, or a hint, whose conditions are text: nothing can execute it, a person or a model can weigh it."""

    rule: str
    system: str
    conditions: list[str] = msgspec.field(default_factory=list)
    actions: dict[str, Any] = msgspec.field(default_factory=dict)
    executable: bool = False
    sha256: str = ""


class HintSuggested(Event, type="hint.suggested", version=1):
    """What triggers a hint came to hold."""

    hint: str
    system: str
    key: dict[str, Any] = msgspec.field(default_factory=dict)
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    suggestion: list[Any] = msgspec.field(default_factory=list)
    place: list[int] = msgspec.field(default_factory=list)
    sha256: str = ""
