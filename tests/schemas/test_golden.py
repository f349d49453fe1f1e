"""Every (type, version) ever shipped still decodes, and no schema changes without a bump.

`tests/golden/` holds one body of each in hex, and the fingerprint of each class. Run this file as a program to add
what is new; it never rewrites what is there.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.schemas import (
    ArtifactSaved,
    CommandAccepted,
    CommandFinished,
    CommandIssued,
    DeadLetter,
    DeadResolved,
    Event,
    LayerHealth,
    LogLine,
    Metrics,
    Names,
    ProducerClosed,
    ProducerDropped,
    RunFailed,
    RunFinished,
    RunStarted,
    Unknown,
    changed,
    decode_event,
    event_classes,
    fingerprint,
)

GOLDEN = Path(__file__).parent.parent / "golden"
BODIES, LOCK = GOLDEN / "bodies.json", GOLDEN / "fingerprints.json"

SAMPLES: list[Event] = [
    ArtifactSaved(
        name="weights", uri="file:///tmp/w.safetensors", kind="model", sha256="ab" * 32, size=12, metadata={"a": 1}
    ),
    CommandAccepted(command_id="c1", worker="w", delivery=1),
    CommandFinished(command_id="c1", worker="w", delivery=1, ok=True, result={"x": [1]}, duration=0.5),
    CommandIssued(command_id="c1", target="trainer", name="stop", args={"now": True}, issuer="me", expires=1),
    DeadLetter(
        command_id="c1", target="trainer", name="stop", reason="unknown", deliveries=5, args={"now": True}, issued=1
    ),
    DeadResolved(command_id="c1", action="retried", retried_as="c2", by="me"),
    LayerHealth(
        layers=Names(["fc1", "fc2"]),
        grad_norm=np.array([0.5, np.nan], np.float32),
        nonfinite=np.array([0, 3], np.float32),
        missing={"dead_share": [1]},
        dead_share=np.array([0.25, 0], np.float32),
    ),
    LogLine(message="höi", level="warning", logger="train", fields={"k": 1}),
    Metrics(values={"loss": 0.5, "step": 2**63 - 1, "bad": float("nan")}),
    ProducerClosed(produced={"metrics": 3}, dropped={"metrics": 1}),
    ProducerDropped(lane="metrics", first=1, last=9, count=9, bytes=100, reason="spool full"),
    RunFailed(error="ValueError", message="no", traceback="...", duration=1.5),
    RunFinished(duration=1.5),
    RunStarted(
        config={"lr": 0.1}, host="h", hosts=["h"], pid=1, argv=["a"], git_commit="c", git_dirty=False, world_size=2
    ),
]


def shipped() -> list[type[Event]]:
    return [cls for cls in event_classes() if cls.__module__.startswith("morphogen.")]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", sorted(_read(BODIES)))
def test_a_body_that_was_ever_shipped_decodes(key: str) -> None:
    kind, version = key.split("@")

    event = decode_event(kind, int(version), bytes.fromhex(_read(BODIES)[key]))

    assert not isinstance(event, Unknown)


def test_every_shipped_class_has_a_golden_body_and_a_locked_fingerprint() -> None:
    keys = {f"{cls.type}@{cls.version}" for cls in shipped()}

    assert keys <= set(_read(BODIES)), "run `python tests/schemas/test_golden.py` to add the new ones"
    assert keys <= set(_read(LOCK))


def test_no_schema_changed_without_a_version_bump() -> None:
    assert changed(shipped(), _read(LOCK)) == []


def test_a_changed_field_changes_the_fingerprint() -> None:
    before = type(Event)("Changing", (Event,), {"__annotations__": {"x": int}}, type="testing.changing", version=1)
    after = type(Event)("Changing", (Event,), {"__annotations__": {"x": float}}, type="testing.changing", version=1)

    assert fingerprint(before) != fingerprint(after)
    assert changed([after], {"testing.changing@1": fingerprint(before)}) == [
        "testing.changing version 1 changed its fields: bump its version and write an upcaster"
    ]


def test_a_golden_body_decodes_to_the_values_it_was_made_from() -> None:
    bodies = _read(BODIES)
    for sample in SAMPLES:
        assert repr(sample) == repr(
            decode_event(sample.type, sample.version, bytes.fromhex(bodies[f"{sample.type}@{sample.version}"]))
        )


def add_new() -> None:
    bodies, lock = _read(BODIES), _read(LOCK)
    for sample in SAMPLES:
        bodies.setdefault(f"{sample.type}@{sample.version}", sample.encode().hex())
    for cls in shipped():
        lock.setdefault(f"{cls.type}@{cls.version}", fingerprint(cls))
    BODIES.write_text(json.dumps(bodies, indent=1, sort_keys=True) + "\n")
    LOCK.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    add_new()
