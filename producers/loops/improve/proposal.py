"""What the improver proposes: edits with the reason and the measurements that speak for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .edits import Edit

DEAD, ORDER, NARROW, DRAFT = "dead_step", "order", "narrow", "draft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One change. `why` is a sentence for a person, `evidence` the figures behind it."""

    kind: str
    title: str
    why: str
    edits: tuple[Edit, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for the log and for programs."""
        return {"kind": self.kind, "title": self.title, "why": self.why, "evidence": dict(self.evidence)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One axis of a sweep's space: some values, or a stretch of numbers."""

    sweep: str
    parameter: str
    values: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a configuration is still in the space, as far as this axis goes."""
        if self.parameter not in config:
            return True
        value = config[self.parameter]
        if self.values is not None:
            return any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in self.values)
        assert self.low is not None
        assert self.high is not None
        return isinstance(value, int | float) and self.low <= value <= self.high
