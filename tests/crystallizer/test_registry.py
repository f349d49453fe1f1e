"""The fold of tools: what it counts, what it refuses, and that it is the same however the log is cut."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.crystallizer import Registry, move
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
    GoalEmbedded,
    vector,
)

FAMILIES = ("g1-00000000000000aa", "g1-00000000000000bb")
TOOLS = tuple(f"tool_{family[3:]}" for family in FAMILIES)


def version(number: int, at: int = 0, **changes: object) -> CrystalRegistered:
    told = {
        "tool": TOOLS[at],
        "signature": FAMILIES[at],
        "attempt": f"a{at}{number}",
        "source": "x",
        "source_sha256": "y",
    }
    return CrystalRegistered(number=number, **{**told, **changes})  # type: ignore[arg-type]


def test_a_tool_is_made_promoted_called_and_replaced() -> None:
    log: list[Event] = [
        CrystalRequested(attempt="a01", signature=FAMILIES[0], tool=TOOLS[0]),
        CrystalDrafted(attempt="a01", source="x", source_sha256="y"),
        CrystalChecked(attempt="a01", stage="parse", ok=True),
        version(1),
        CrystalShadowed(tool=TOOLS[0], number=1, request="r", agreed=True),
        CrystalShadowed(tool=TOOLS[0], number=1, request="r", agreed=False),
        move(TOOLS[0], 1, "shadow", "active", "good"),
        CrystalInvoked(tool=TOOLS[0], number=1, request="r", ok=True, duration_ns=5, cpu_ns=2),
        CrystalInvoked(tool=TOOLS[0], number=1, request="r", ok=False, error="e"),
        CrystalInvoked(tool=TOOLS[0], number=1, request="r", ok=False, guard="type x"),
        version(2),
        move(TOOLS[0], 1, "active", "superseded", "old"),
        move(TOOLS[0], 2, "shadow", "active", "new"),
    ]
    registry = Registry(log)
    one = registry.version(TOOLS[0], 1)
    assert one is not None
    assert (one.state, one.shadows, one.agreed, one.calls, one.successes) == ("superseded", 2, 1, 2, 1)
    assert (one.misses, one.missed, one.duration_ns, one.cpu_ns) == ({"type x": 1}, 1, 5, 2)
    active = registry.active(FAMILIES[0])
    assert active is not None
    assert active.number == 2
    assert registry.shadow(FAMILIES[0]) is None
    assert registry.active(FAMILIES[1]) is None
    attempt = registry.attempts["a01"]
    assert attempt.done
    assert attempt.version == (TOOLS[0], 1)
    assert registry.refusals == 0


def test_what_does_not_fit_changes_nothing_and_is_told() -> None:
    registry = Registry([version(1)])
    before = registry.snapshot()["tools"]
    for event in (
        version(1, source="other"),
        version(0),
        version(2, tool="tool_other"),
        CrystalMoved(tool=TOOLS[0], number=9, was="shadow", now="active", reason=""),
        CrystalMoved(tool=TOOLS[0], number=1, was="demoted", now="retired", reason=""),
        CrystalInvoked(tool="tool_nobody", number=1, request="r", ok=True),
        CrystalShadowed(tool=TOOLS[0], number=7, request="r", agreed=True),
    ):
        registry.seen(event)
    assert registry.snapshot()["tools"] == before
    assert registry.refusals == 7 == len(registry.refused)
    assert all("\n" not in line for line in registry.refused)


def test_the_same_registration_told_twice_is_one() -> None:
    assert Registry([version(1), version(1)]) == Registry([version(1)])


def test_a_failed_attempt_is_kept_with_its_reason() -> None:
    failed = CrystalFailed(attempt="a", signature=FAMILIES[0], stage="replay", reason="it differs")
    registry = Registry([CrystalRequested(attempt="a", signature=FAMILIES[0], tool=TOOLS[0]), failed])
    assert registry.attempts["a"].failed == failed
    assert registry.attempts["a"].done
    assert registry.tools == {}


def test_events_of_other_rooms_are_passed_over() -> None:
    assert Registry([GoalEmbedded(signature="g", template="t", model="m", vector=vector([1.0]))]) == Registry()


numbers, at = st.integers(1, 3), st.integers(0, 1)
states = st.sampled_from(["shadow", "active", "superseded", "demoted", "retired"])
events = st.one_of(
    st.builds(version, numbers, at),
    st.builds(
        lambda number, one, was, now: CrystalMoved(tool=TOOLS[one], number=number, was=was, now=now, reason=""),
        numbers, at, states, states,
    ),
    st.builds(
        lambda number, one, ok, guard: CrystalInvoked(tool=TOOLS[one], number=number, request="r", ok=ok, guard=guard),
        numbers, at, st.booleans(), st.sampled_from([None, "type a", "world b"]),
    ),
    st.builds(
        lambda number, one, ok: CrystalShadowed(tool=TOOLS[one], number=number, request="r", agreed=ok),
        numbers, at, st.booleans(),
    ),
    st.builds(lambda key, ok: CrystalChecked(attempt=key, stage="parse", ok=ok), st.sampled_from("ab"), st.booleans()),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(events, max_size=40), st.integers(0, 40))
def test_the_fold_is_the_same_however_the_log_is_cut_and_is_plain_data(told: list[Event], cut: int) -> None:
    whole = Registry(told)
    parts = Registry(told[:cut])
    for event in told[cut:]:
        parts.seen(event)
    assert whole == parts
    assert json.dumps(whole.snapshot()) == json.dumps(parts.snapshot())
    for tool in whole.tools.values():
        for one in tool.versions.values():
            assert 0 <= one.successes <= one.calls
            assert 0 <= one.agreed <= one.shadows
