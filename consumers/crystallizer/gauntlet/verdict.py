"""What the gauntlet found: each stage as its event, and what a version that passed is registered with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morphogen.schemas import CrystalChecked, CrystalDrafted, CrystalFailed, CrystalRegistered, CrystalRequested
from morphogen.schemas.crystals import Guard


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`stages` are in order; the last is the one that failed, where one did. `guards` are empty then."""

    draft: CrystalDrafted
    stages: tuple[CrystalChecked, ...]
    guards: tuple[Guard, ...] = ()
    effects: tuple[str, ...] = ()  # effect classes of the capabilities that it uses
    replayed: int = 0  # held-out executions that it reproduced
    limits: Mapping[str, float] | None = None  # that it was run under

    @property
    def ok(self) -> bool:
        """Whether every stage that was tried was passed."""
        return all(stage.ok for stage in self.stages)

    @property
    def failed(self) -> CrystalChecked | None:
        """The stage that it did not pass, or None."""
        return next((stage for stage in self.stages if not stage.ok), None)

    def failure(self, signature: str) -> CrystalFailed | None:
        """Return the event that ends the attempt, or None where the draft passed."""
        stage = self.failed
        if stage is None:
            return None
        return CrystalFailed(attempt=self.draft.attempt, signature=signature, stage=stage.stage, reason=stage.reason)

    def registered(
        self,
        requested: CrystalRequested,
        number: int,
        *,
        parent: int | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> CrystalRegistered:
        """Return the event that registers the draft as a version, unsigned. Only for a verdict that is ok."""
        assert self.ok, "a draft that failed is not registered"
        return CrystalRegistered(
            tool=requested.tool,
            number=number,
            signature=requested.signature,
            attempt=self.draft.attempt,
            source=self.draft.source,
            source_sha256=self.draft.source_sha256,
            entry=self.draft.entry,
            params=self.draft.params,
            returns=self.draft.returns,
            guards=list(self.guards),
            capabilities=list(self.draft.capabilities),
            effects=list(self.effects),
            limits=dict(self.limits or {}),
            parent=parent,
            provenance={
                "made_from": list(requested.made_from),
                "held_out": list(requested.held_out),
                "replayed": self.replayed,
                "maker": self.draft.maker,
                "stages": [stage.stage for stage in self.stages],
                **(provenance or {}),
            },
        )
