"""One stage as it was judged: passed where it has no reason against it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from morphogen.schemas import CrystalChecked


@dataclass(frozen=True)
class Stage:
    """A stage of `schemas.crystals.STAGES`, with its evidence as plain values."""

    name: str
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    tried: int = 0
    matched: int = 0
    layers: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was passed."""
        return not self.reason

    def event(self, attempt: str, duration_ns: int) -> CrystalChecked:
        """Return the event that says so."""
        return CrystalChecked(
            attempt=attempt,
            stage=self.name,
            ok=self.ok,
            reason=self.reason,
            evidence=dict(self.evidence),
            tried=self.tried,
            matched=self.matched,
            duration_ns=duration_ns,
            layers=self.layers,
        )
