"""Not one wrong tool: families that are made to mislead are refused, or their tools step back where they would be wrong."""

from pathlib import Path

import pytest

from morphogen.consumers.crystallizer import (
    CrystalError,
    GauntletConfig,
    GuardMissed,
    Loader,
    NoTool,
    Registry,
    move,
    run_gauntlet,
)
from morphogen.kernels.sandbox import Sandbox, value_sha256
from morphogen.schemas import CrystalRequested

from .courses import draft, executed, family
from .misleading import FAMILIES, Misleading, World

FEW = GauntletConfig(again=3, crossed=3, edges=6, wrong=2, worlds=3)


@pytest.mark.parametrize("one", FAMILIES, ids=[one.name for one in FAMILIES])
def test_a_misleading_family_gives_no_wrong_answer(one: Misleading, sandbox: Sandbox, tmp_path: Path) -> None:
    world = World(tmp_path)
    one.prepare(world)
    traces = family(one.agent, one.params, world.capabilities)
    text = draft(one.text, traces, one.capabilities)
    verdict = run_gauntlet(
        text, traces[10:], made_from=traces[:10], sandbox=sandbox, capabilities=world.capabilities, config=FEW
    )
    if not verdict.ok:
        assert verdict.failed is not None
        assert verdict.failed.reason
        return
    assert one.traps, "a family without a trap is to be refused"
    requested = CrystalRequested(attempt="a1", signature=traces[0].signature, tool=f"tool_{traces[0].signature[3:]}")
    made = verdict.registered(requested, 1)
    registry = Registry([made, move(made.tool, 1, "shadow", "active", "as if promoted")])
    loader = Loader(registry, world.capabilities, sandbox)
    assert loader.boot.refused == {}
    one.before(world)
    for trap in one.traps:
        before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
        called, miss = None, None
        try:
            called = loader.call(made.signature, trap, "r", {"python": "3.11"})
        except GuardMissed as missed:
            miss = missed
        if miss is not None:
            assert miss.invoked.guard == miss.name
            assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before
        elif called is not None and called.ok:
            meant = executed(one.agent, trap, world.capabilities)
            assert value_sha256(called.value) == value_sha256(meant.output)


def test_a_family_of_few_executions_is_not_judged_on_none(sandbox: Sandbox, tmp_path: Path) -> None:
    one = FAMILIES[0]
    traces = family(one.agent, one.params, World(tmp_path).capabilities)
    verdict = run_gauntlet(draft(one.text, traces), traces[:1], made_from=traces[1:], sandbox=sandbox, config=FEW)
    assert verdict.failed is not None
    assert verdict.failed.stage == "replay"
    assert "2 are needed" in verdict.failed.reason


def test_errors_of_this_room_have_one_root() -> None:
    assert issubclass(GuardMissed, CrystalError)
    assert issubclass(NoTool, CrystalError)
