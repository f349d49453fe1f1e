"""`know load`, `know drop`, `know loaded`, `know diff` and `facts`, as people type them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.consumers.projections.facts.loading import clash_of, load_events, users_of
from morphogen.consumers.projections.sql.query import SqlClient
from morphogen.schemas.knowledge import parse as parsing
from morphogen.schemas.knowledge.parse import Parsed
from morphogen.schemas.knowledge.program import load as read_program

from .modules import MATMUL, loaded, perf


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    """Settings whose SQL client is closed before the broker is stopped."""
    yield settings
    SqlClient.shared(settings).close()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The module as a file."""
    path = tmp_path / "matmul.mk"
    path.write_text(MATMUL)
    return path


def test_a_module_is_loaded_asked_and_dropped(
    settings: Settings, module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["know", "load", str(module)]) == 0
    assert "loaded at message 1" in capsys.readouterr().out
    assert run(["know", "load", str(module)]) == 0
    assert "in force already" in capsys.readouterr().out
    with Bus.open(settings) as bus:
        for number, tflops in enumerate((12.0, 9.0)):
            bus.emit(perf(tflops), run="r", msg_id=f"item {number}")

    assert run(["facts", "--json", "--run", "r", "--module", "MatMul"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["fact"], one["evidence"]["tflops"], one["place"]) for one in found] == [
        ("is_slow", 9.0, [3, 0, 0]), ("regresses", 9.0, [3, 0, 0]),
    ]  # fmt: skip
    assert run(["facts"]) == 0
    assert "is_slow" in capsys.readouterr().out
    assert run(["know", "loaded"]) == 0
    assert "Think is advice, not executable: it feels slow" in capsys.readouterr().out
    assert run(["know", "drop", "MatMull"]) == 1
    assert "did you mean" in capsys.readouterr().err
    assert run(["know", "drop", "MatMul"]) == 0
    assert run(["facts"]) == 0
    assert "no knowledge is loaded" in capsys.readouterr().err


def test_several_modules_load_at_once_and_one_that_others_stand_on_is_not_dropped(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base.mk").write_text("system Ground { trace_schema { variant T { case Beat { x: float } } } }")
    upper = 'use "base.mk" system Upper { knowledge { fact high(t: Ground.Beat) { return t.x > 1 } } }'
    (tmp_path / "upper.mk").write_text(upper)

    assert run(["know", "load", str(tmp_path / "base.mk"), str(tmp_path / "upper.mk")]) == 0
    assert "Ground: loaded at message 1" in capsys.readouterr().out
    assert run(["know", "drop", "Ground"]) == 1
    assert "Upper stands on 'Ground': drop that first" in capsys.readouterr().err
    assert run(["know", "drop", "Upper"]) == 0
    assert run(["know", "drop", "Ground"]) == 0


def test_a_changed_fact_shows_what_would_have_been_different(
    settings: Settings, module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.mk"
    changed.write_text(MATMUL.replace("SLOW = 10.0", "SLOW = 8.5"))
    with Bus.open(settings) as bus:
        for number, tflops in enumerate((12.0, 9.0, 8.0, 9.0)):
            bus.emit(perf(tflops), run="r" if number < 3 else "other", msg_id=f"item {number}")

    assert run(["know", "diff", str(module), str(module)]) == 0
    assert "nothing would have been different" in capsys.readouterr().out
    assert run(["know", "diff", str(module), str(changed), "--runs", "r", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)

    (fact,) = [one for one in document["facts"] if one["status"] != "same"]
    assert (fact["fact"], fact["old_holds"], fact["new_holds"], fact["changed_items"]) == ("MatMul.is_slow", 2, 1, 1)
    assert (fact["old_changes"], fact["new_changes"]) == (1, 1)
    (place,) = fact["first"]
    assert (place["seq"], place["run"], place["old"], place["new"]) == (2, "r", True, False)
    assert place["old_values"] == {"tflops": 9.0, "bound": "mem"}


def test_what_cannot_be_loaded_is_one_line(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.mk"
    task.write_text('task T { step s: tool.run { cmd: "true" } }\n')

    assert run(["know", "load", str(tmp_path / "none.mk")]) == 1
    assert run(["know", "load", str(task)]) == 1

    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "has no system" in lines[1]


def test_each_text_is_parsed_once_however_many_systems_it_has(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.mk"
    path.write_text(
        "\n".join(f"system S{i} {{ trace_schema {{ variant T {{ case Beat {{ x: float }} }} }} }}" for i in range(9))
    )
    upper = tmp_path / "upper.mk"
    upper.write_text('use "many.mk" system Upper { knowledge { fact high(t: S1.Beat) { return t.x > 1 } } }')
    other = tmp_path / "other.mk"
    other.write_text("system Other { trace_schema { variant T { case Beat { x: float } } } }")
    assert run(["know", "load", str(upper)]) == 0
    parsed: list[str] = []
    parse = parsing.parse

    def counted(text: str) -> Parsed:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(parsing, "parse", counted)

    events = load_events(read_program(other), str(other))
    parsed.clear()
    assert clash_of(settings, events) is None
    assert len(parsed) == len(set(parsed)) == 3
    parsed.clear()
    assert users_of(settings, "S0") == ["Upper"]
    assert len(parsed) == 1


def test_names_that_sql_cannot_tell_apart_are_not_loaded(
    settings: Settings, module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.mk"
    other.write_text("system Mat_Mul { trace_schema { variant T { case Beat { x: float } } } }")
    assert run(["know", "load", str(module), str(other)]) == 1
    assert "`Mat_Mul` and `MatMul` are both `facts_mat_mul` in SQL" in capsys.readouterr().err
    assert run(["know", "load", str(module)]) == 0
    assert run(["know", "load", str(other)]) == 1
    capsys.readouterr()

    assert run(["know", "drop", "MatMul"]) == 0
    assert run(["know", "load", str(other)]) == 0


def test_only_what_is_loaded_now_can_clash(
    settings: Settings, module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def text(system: str, case: str) -> str:
        return f"system {system} {{ trace_schema {{ variant T {{ case {case} {{ x: float }} }} }} }}"

    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    with Bus.open(settings) as bus:  # two that clash, as an earlier version let them in
        for system, case in (("A", "B_C"), ("A_B", "C")):
            bus.emit(loaded(text(system, case), f"{system}.mk", [system]), run="r", msg_id=system)

    assert run(["know", "load", str(module)]) == 0
    assert run(["know", "load", file("a.mk", text("A", "D")), file("b.mk", text("A_B", "C")), "--again"]) == 0
    assert run(["know", "load", file("a.mk", text("A", "B_C"))]) == 1
    assert "`A.B_C` and `A_B.C` are both `trace_a_b_c` in SQL" in capsys.readouterr().err


def test_what_is_not_there_is_told(
    settings: Settings, module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.mk"
    other.write_text(MATMUL.replace("system MatMul", "system Else"))
    assert run(["know", "load", str(module)]) == 0
    with Bus.open(settings) as bus:
        bus.emit(perf(9.0), run="r", msg_id="item")
    capsys.readouterr()

    assert run(["know", "diff", str(module), str(other), "--runs", "r,nosuch"]) == 1
    assert "the log has nothing of run 'nosuch'" in capsys.readouterr().err
    for nobody in ("", ","):
        assert run(["know", "diff", str(module), str(other), "--runs", nobody]) == 2
        assert "--runs names no run" in capsys.readouterr().err
    run(["know", "diff", str(module), str(other), "--runs", "r"])
    assert "have no fact in common" in capsys.readouterr().err
    assert run(["facts", "--run", "nosuch", "--all"]) == 0
    assert capsys.readouterr().err.strip() == "no item of run 'nosuch' was judged by any fact"
    assert run(["facts", "--run", "nosuch"]) == 0
    assert "no fact of run 'nosuch' holds; `morphogen facts --all`" in capsys.readouterr().err


def test_evidence_that_is_not_finite_is_json(
    settings: Settings, module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert run(["know", "load", str(module)]) == 0
    with Bus.open(settings) as bus:
        bus.emit(perf(float("-inf")), run="r", msg_id="item")
    capsys.readouterr()
    assert run(["facts", "--json"]) == 0

    found = [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]
    assert [one["evidence"]["tflops"] for one in found] == ["-Infinity"]
