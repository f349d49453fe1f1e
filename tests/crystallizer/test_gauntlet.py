"""The gauntlet: what an honest tool passes, and where each other one ends."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.consumers.crystallizer import GauntletConfig, run_gauntlet
from morphogen.consumers.crystallizer.gauntlet import Verdict, promoted, shadowed
from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import Capabilities, Declared, Sandbox, Workspace
from morphogen.schemas import CrystalChecked, CrystalRequested
from morphogen.schemas.crystals import STAGES

from .courses import draft, family

FEW = GauntletConfig(again=3, crossed=3, edges=6, wrong=3, worlds=3)
SUM = '''import csv
import io


def run(path: str, out: str) -> int:
    """Sum the prices of a table, and write the total."""
    for value in (path, out):
        if not isinstance(value, str):
            raise ValueError("paths are text")
    rows = csv.DictReader(io.StringIO(files.read_text(path)))
    total = sum(int(row["price"]) for row in rows)
    files.write_text(out, f"total {total}\\n")
    return total
'''
DOUBLE = 'def run(n: int) -> int:\n    """Double it."""\n    return n * 2\n'
LOOPING = """def run(n: int) -> int:
    return n * 2 if isinstance(n, int) else again(n)


def again(n: int) -> int:
    return again(n)
"""
USED = ["files.read_text", "files.write_text"]


@pytest.fixture
def shop(tmp_path: Path) -> Capabilities:
    for at in range(16):
        rows = "".join(f"n{row},{(at * 7 + row * 3) % 50}\n" for row in range(3 + at % 5))
        (tmp_path / f"d{at}.csv").write_text(f"name,price\n{rows}")
    return Capabilities(files=Workspace(tmp_path, write=True))


def summing(act: Callable[..., Any], path: str, out: str) -> int:
    """Sum as an agent does: with looks that nobody needs, reads once more, and failures that are tried again."""
    at = int(path[1:-4])
    if at % 3 == 0:
        act("files.list_folder", path="")
    if at % 4 == 1:
        with contextlib.suppress(FileNotFoundError):
            act("files.read_text", path="missing.csv")
    text = act("files.read_text", path=path)
    total = sum(int(line.split(",")[1]) for line in text.splitlines()[1:])
    if at % 5 == 2:
        act("files.read_text", path=path)
    act("files.write_text", path=out, text=f"total {total}\n")
    return total


def summed(shop: Capabilities) -> list[Trace]:
    return family(summing, [{"path": f"d{at}.csv", "out": f"o{at}.txt"} for at in range(16)], shop)


def doubled() -> list[Trace]:
    return family(lambda act, n: n * 2, [{"n": at * 3} for at in range(12)])


def judge(source: str, traces: list[Trace], sandbox: Sandbox, capabilities: Any = (), **changes: Any) -> Verdict:
    text = draft(source, traces, capabilities, **changes)
    return run_gauntlet(text, traces[6:], made_from=traces[:6], sandbox=sandbox, config=FEW)


def ends(verdict: Verdict) -> tuple[str, str]:
    assert verdict.failed is not None
    assert verdict.stages[-1] is verdict.failed
    assert verdict.guards == ()
    return verdict.failed.stage, verdict.failed.reason


def test_an_honest_tool_passes_every_stage_with_its_evidence(
    shop: Capabilities, sandbox: Sandbox, tmp_path: Path
) -> None:
    traces = summed(shop)
    for path in tmp_path.glob("o*.txt"):
        path.unlink()
    told: list[CrystalChecked] = []
    verdict = run_gauntlet(
        draft(SUM, traces, USED), traces[8:], made_from=traces[:8], sandbox=sandbox, capabilities=shop, config=FEW,
        on_stage=told.append,
    )  # fmt: skip
    assert verdict.ok, verdict.failed
    assert told == list(verdict.stages)
    assert tuple(stage.stage for stage in told) == STAGES[:6]
    stages = {stage.stage: stage for stage in told}
    assert (stages["replay"].tried, stages["replay"].matched) == (8, 8) == (verdict.replayed, 8)
    assert stages["replay"].evidence["executions"] == [f"e{at}" for at in range(8, 16)]
    assert "seccomp" in stages["replay"].layers
    assert set(stages["property"].evidence["cases"]) == {"again", "crossed", "edge", "wrong", "world"}
    assert all(stage.duration_ns > 0 for stage in told)
    assert verdict.effects == ("read", "write")
    assert list(tmp_path.glob("o*.txt")) == []  # nothing was done for real
    made = verdict.registered(CrystalRequested(attempt="a1", signature=traces[0].signature, tool="tool_x"), 1)
    assert made.provenance["replayed"] == 8
    assert made.capabilities == USED
    assert msgspec.msgpack.decode(made.encode())["guards"]


def test_the_same_draft_gets_the_same_verdict(shop: Capabilities, sandbox: Sandbox) -> None:
    traces = summed(shop)

    def said() -> Any:
        verdict = run_gauntlet(
            draft(SUM, traces, USED), traces[12:], made_from=traces[:12], sandbox=sandbox, config=FEW
        )
        measured = {"duration_ns": 0, "evidence": {}}
        return verdict.guards, [msgspec.structs.replace(stage, **measured) for stage in verdict.stages]

    assert said() == said()


@pytest.mark.parametrize(
    ("source", "stage", "reason"),
    [
        ("def run(n: int) -> int\n    return 1\n", "parse", "this is no Python"),
        ("import os\n\n\ndef run(n: int) -> int:\n    return n * 2\n", "grammar", "os cannot be imported"),
        ("def run(n: int) -> int:\n    return n.__class__(n * 2)\n", "grammar", "underscore"),
        ("def other(n: int) -> int:\n    return n * 2\n", "grammar", "no function 'run'"),
        ("def run(n: int, more: int) -> int:\n    return n * 2\n", "grammar", "the family has (n)"),
        ("def run(**n: int) -> int:\n    return 2\n", "grammar", "names"),
        ("def run(n: int) -> int:\n    return n * 2\n\n\ndef run(n: int) -> int:\n    return 0\n", "grammar", "one function"),
        ("def run(n) -> int:\n    return n * 2\n", "types", "no annotation"),
        ("def run(n: str) -> int:\n    return n * 2\n", "types", "was recorded as"),
        ("def run(n: int) -> str:\n    return n * 2\n", "types", "it returns str"),
        ("def run(n: int):\n    return n * 2\n", "types", "no annotation"),
        ("N = [1][2]\n\n\ndef run(n: int) -> int:\n    return n * 2\n", "sandbox_import", "IndexError"),
        ("def run(n: int) -> int:\n    return n * 2 if n < 20 else 0\n", "replay", "held-out executions differ"),
        ("def run(n: int) -> int:\n    return n * 2.0\n", "replay", "it gives"),
        ("def run(n: int) -> int:\n    raise ValueError(n)\n", "replay", "ValueError"),
        ("def run(n: int) -> int:\n    while n % 3 == 1:\n        pass\n    return n * 2\n", "property", "ended by"),
        (LOOPING, "property", "RecursionError"),
        ("def run(n: int) -> int:\n    assert isinstance(n, int)\n    return n * 2\n", "property", "AssertionError"),
    ],
)  # fmt: skip
def test_each_fault_ends_at_its_stage_in_one_line(source: str, stage: str, reason: str, sandbox: Sandbox) -> None:
    at, why = ends(judge(source, doubled(), sandbox))
    assert (at, reason in why) == (stage, True), (at, why)
    assert "\n" not in why


def test_a_text_that_was_changed_after_it_was_hashed_is_not_even_parsed(sandbox: Sandbox) -> None:
    assert ends(judge(DOUBLE, doubled(), sandbox, source_sha256="sha256:0")) == (
        "parse",
        "the text is not the one that was hashed when it was drafted; draft it again",
    )


def test_two_executions_that_contradict_each_other_show_something_unseen(sandbox: Sandbox) -> None:
    traces = doubled()
    twin = family(lambda act, n: n + 1, [{"n": traces[2].params["n"]}])[0]
    at, why = ends(judge(DOUBLE, [*traces, twin], sandbox))
    assert at == "replay"
    assert "something unseen decides" in why


def test_a_clock_that_is_declared_pure_is_found_out(sandbox: Sandbox) -> None:
    days = iter(["2023-11-14"] * 11 + ["2023-11-15"])
    changing = Capabilities(tools={"today": Declared(lambda: next(days), "pure")})
    traces = family(lambda act, n: f"{n} {act('today')}", [{"n": at} for at in range(12)], changing)
    source = 'def run(n: int) -> str:\n    return f"{n} {today()}"\n'
    at, why = ends(judge(source, traces, sandbox, ["today"]))
    assert (at, "is declared pure" in why) == ("replay", True)
    written = 'def run(n: int) -> str:\n    return f"{n} 2023-11-14"\n'
    at, why = ends(judge(written, traces[:11], sandbox))
    assert (at, "time of the recordings" in why) == ("grammar", True)
    verdict = judge(source, traces[:11], sandbox, ["today"])
    assert verdict.ok
    assert [guard.subject for guard in verdict.guards if guard.kind == "world"] == ["today"]


def test_what_somebody_rejected_is_not_to_be_repeated(sandbox: Sandbox) -> None:
    traces = doubled()
    bad = replace(traces[0], execution="bad", outcome="failure", judged_by="user", params={"n": 100}, output=200)
    verdict = run_gauntlet(
        draft(DOUBLE, traces), traces[6:], made_from=traces[:6], rejected=[bad], sandbox=sandbox, config=FEW
    )
    at, why = ends(verdict)
    assert at == "replay"
    assert "judged a failure by user" in why


def test_failed_and_incomplete_executions_prove_nothing(sandbox: Sandbox) -> None:
    traces = [replace(trace, outcome="failure") for trace in doubled()[6:]]
    verdict = run_gauntlet(draft(DOUBLE, doubled()), traces, made_from=doubled()[:6], sandbox=sandbox, config=FEW)
    assert ends(verdict)[0] == "replay"


def test_where_nothing_varied_nothing_is_proven(sandbox: Sandbox) -> None:
    traces = family(lambda act: 42, [{} for _ in range(12)])
    at, why = ends(judge("def run() -> int:\n    return 42\n", traces, sandbox))
    assert at == "replay"
    assert "nothing varied" in why


def test_what_varied_must_make_a_difference_unless_it_was_shown_to_make_none(sandbox: Sandbox) -> None:
    source = "def run(n: int, label: str) -> int:\n    return n * 2\n"
    traces = family(lambda act, n, label: n * 2, [{"n": at * 3, "label": f"l{at}"} for at in range(12)])
    at, why = ends(judge(source, traces, sandbox))
    assert at == "property"
    assert "'label' differs from execution to execution" in why
    shown = family(lambda act, n, label: n * 2, [{"n": at // 2 * 3, "label": f"l{at}"} for at in range(12)])
    assert judge(source, shown, sandbox).ok


def test_an_answer_that_is_read_and_let_go_is_noticed(sandbox: Sandbox) -> None:
    real = Capabilities(tools={"look": Declared(lambda n: n * 7, "read")})

    def agent(act: Callable[..., Any], n: int) -> int:
        return n * 2 if act("look", n=n) >= 0 else 0

    traces = family(agent, [{"n": at * 3} for at in range(12)], real)
    at, why = ends(judge("def run(n: int) -> int:\n    look(n=n)\n    return n * 2\n", traces, sandbox, ["look"]))
    assert (at, "changes nothing" in why) == ("property", True)
    whole = "def run(n: int) -> int:\n    return n * 2 if look(n=n) >= 0 else 0\n"
    assert judge(whole, traces, sandbox, ["look"]).ok


def test_a_read_left_out_that_cannot_be_asked_beforehand_is_held_against_a_draft(sandbox: Sandbox) -> None:
    real = Capabilities(
        tools={"find": Declared(lambda n: f"k{n * n}", "read"), "open": Declared(lambda key: "on", "read")}
    )

    def agent(act: Callable[..., Any], n: int) -> str:
        key = act("find", n=n)
        return f"{key} is {act('open', key=key)}"

    traces = family(agent, [{"n": at * 3} for at in range(12)], real)
    source = 'def run(n: int) -> str:\n    return f"{find(n=n)} is on"\n'
    at, why = ends(judge(source, traces, sandbox, ["find"]))
    assert (at, "the tool does not read it" in why) == ("replay", True)


def test_a_capability_is_called_by_place_or_by_name(sandbox: Sandbox) -> None:
    def scaled(value: int, by: int = 10) -> int:
        return value * by

    real = Capabilities(tools={"math_tools.scaled": Declared(scaled, "pure")})
    traces = family(lambda act, n: act("math_tools.scaled", value=n), [{"n": at} for at in range(12)], real)
    source = "def run(n: int) -> int:\n    return math_tools.scaled(n, 10)\n"
    text = draft(source, traces, ["math_tools.scaled"])
    verdict = run_gauntlet(text, traces[6:], made_from=traces[:6], sandbox=sandbox, capabilities=real, config=FEW)
    assert verdict.ok, verdict.failed


def test_runs_beside_the_live_mode_are_counted_and_one_difference_is_too_many() -> None:
    assert shadowed(3, 3).ok
    assert not shadowed(2, 2).ok
    assert "1 of 4" in shadowed(3, 4).reason
    assert promoted(10, 3, 3).ok
    assert not promoted(2, 3, 3).ok
    assert promoted(2, 7, 7).ok
    assert promoted(10, 3, 3).evidence["lower"] == pytest.approx(13 / (13 + 1.6449**2))


def test_with_shadow_runs_the_last_two_stages_are_judged_too(sandbox: Sandbox) -> None:
    traces = doubled()
    verdict = run_gauntlet(
        draft(DOUBLE, traces), traces[3:], made_from=traces[:3], sandbox=sandbox, shadows=(4, 4), config=FEW
    )
    assert verdict.ok
    assert tuple(stage.stage for stage in verdict.stages) == STAGES
