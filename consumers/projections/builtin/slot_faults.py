"""`alerts`, `slot_failures`, `slot_refusals`: what went wrong while networks grew, and what was done about it."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import (
    AlertRaised,
    ArtifactQuarantined,
    BreakerChanged,
    HostRestored,
    SlotFailed,
    SlotRefused,
)

from ..fold.batch import Entry
from ..projection import Projection
from .bounds import int32, int64

_TYPES = (AlertRaised, ArtifactQuarantined, BreakerChanged, HostRestored, SlotFailed, SlotRefused)


class SlotFaults(Projection, name="slot_faults", version=1, types=tuple(cls.type for cls in _TYPES)):
    """Alerts for people, failures in slots with their recovery, refused requests, restored hosts, breakers."""

    tables = {
        "alerts": "severity VARCHAR, subject VARCHAR, message VARCHAR, evidence VARIANT",
        "slot_failures": "slot VARCHAR, seed VARCHAR, error VARCHAR, message VARCHAR, recovery VARCHAR, "
        "recovered BOOLEAN, try INTEGER, blueprint VARCHAR",
        "slot_refusals": "slot VARCHAR, asked VARCHAR, reason VARCHAR, decision VARCHAR",
        "host_restores": "reason VARCHAR, snapshot_step BIGINT, loss DOUBLE, threshold DOUBLE, slots VARCHAR[], "
        "decision VARCHAR",
        "breaker_changes": "name VARCHAR, from_state VARCHAR, to_state VARCHAR, failures INTEGER",
        "quarantines": "blueprint VARCHAR, reason VARCHAR, failures INTEGER",
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        match body:
            case AlertRaised():
                yield "alerts", (body.severity, body.subject, body.message, body.evidence)
            case SlotFailed():
                yield "slot_failures", (
                    body.slot, body.seed, body.error, body.message, body.recovery, body.recovered, int32(body.attempt),
                    body.blueprint,
                )  # fmt: skip
            case SlotRefused():
                yield "slot_refusals", (body.slot, body.asked, body.reason, body.decision)
            case HostRestored():
                yield "host_restores", (
                    body.reason, int64(body.snapshot_step), body.loss, body.threshold, body.slots, body.decision,
                )  # fmt: skip
            case BreakerChanged():
                yield "breaker_changes", (body.name, body.from_state, body.to_state, int32(body.failures))
            case ArtifactQuarantined():
                yield "quarantines", (body.blueprint, body.reason, int32(body.failures))
