"""Loading: a program has everything by name, and uses other modules without ever crashing on them."""

import os
from pathlib import Path

import pytest

from morphogen.schemas.knowledge import loading
from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.evaluate import evaluate, evaluate_fact
from morphogen.schemas.knowledge.program import Program, load, load_text
from morphogen.schemas.knowledge.tools import ParameterSpec, Signature
from morphogen.schemas.knowledge.tree import AgentLoop, Emit, EngineeringLoop, If, Literal, Name, Task
from morphogen.schemas.knowledge.wording import source

from .programs import FUSE, TASK, TUNER, WHOLE

SHARED = """
system Shared {
  const LIMIT = 2 s
  trace_schema { variant Item { case Perf { latency: float in ms } } }
  knowledge { fact slow(t: Perf) { return t.latency > LIMIT } }
  function twice(a: float): float { return 2 * a }
}
"""
USER = """
use "shared.mk"
system User {
  trace_schema { variant Item { case Mine { x: float } } }
  knowledge {
    fact crawling(t: Shared.Perf) { return slow(t) && t.latency > 1 min }
    rule "Stop" { when: slow apply: "stop" }
  }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared.mk").write_text(SHARED)
    (tmp_path / "user.mk").write_text(USER)
    return tmp_path


def failure(text: str, path: str = "test.mk", **used: str) -> KnowledgeError:
    with pytest.raises(KnowledgeError) as caught:
        load_text(text, path, used={f"{name}.mk": one for name, one in used.items()})
    return caught.value


def test_a_program_has_everything_by_its_full_name() -> None:
    program = load_text(WHOLE, "gemm.mk")

    assert list(program.cases) == ["Gemm.Performance", "Gemm.Correctness", "Gemm.Analysis"]
    assert list(program.facts)[:2] == ["Gemm.is_slow", "Gemm.is_crawling"]
    assert program.facts["Gemm.is_rising"].case == "Gemm.Performance"
    assert set(program.rules) == {"Gemm.Swizzle blocks", "Gemm.Larger tiles", "Gemm.Ask a person", "Layouts.Pad"}
    assert set(program.invariants) == {"Gemm.Exact", "Gemm.Small", "Layouts.Aligned"}
    assert set(program.loops) == {"Gemm.Improve", "Gemm.Watch", "Gemm.Tiles"}
    assert (list(program.views), list(program.functions), list(program.procedures)) == (
        ["Gemm.fastest"],
        ["Gemm.flops"],
        ["Gemm.note"],
    )
    assert list(program.artifacts) == ["Gemm.report.md", "Gemm.knowledge.mk"]
    assert (list(program.recorded), list(program.hints)) == (["Gemm.hopper_has_tma"], ["Gemm.Autotune"])
    assert (program.constants, list(program.states)) == (
        {"Gemm.ENOUGH": 0.85, "Gemm.SLOW": 3},
        ["Gemm.best", "Gemm.moved"],
    )
    assert [one.code for one in program.warnings] == ["K310"]


def test_a_rule_tells_its_facts_its_conditions_and_its_advice_apart() -> None:
    program = load_text(WHOLE)

    larger, asked = program.rules["Gemm.Larger tiles"], program.rules["Gemm.Ask a person"]

    assert larger.facts == ("Gemm.is_memory_bound",)
    assert [source(one) for one in larger.conditions] == ["is_memory_bound(trace.latest)", "tile < 64"]
    assert (asked.conditions, asked.advice) == ((), ("the numbers look odd",))
    assert program.rules["Gemm.Swizzle blocks"].facts == ("Gemm.is_slow",)


def test_names_are_found_by_every_spelling() -> None:
    program = load_text(WHOLE)

    spellings = ("Performance", "TraceItem.Performance", "Gemm.Performance", "Gemm.TraceItem.Performance")

    assert {program.case(one).name for one in spellings} == {"Gemm.Performance"}
    assert program.fact("is_slow").name == "Gemm.is_slow"
    assert program.procedure("note").name == "note"
    with pytest.raises(KnowledgeError, match="no case `Performanse`; did you mean `Performance`"):
        program.case("Performanse")


def test_a_loop_is_found_by_its_name_or_because_it_is_the_only_one() -> None:
    whole, task, tuner = load_text(WHOLE), load_text(TASK), load_text(TUNER)

    assert isinstance(whole.find_loop("Improve"), AgentLoop)
    assert isinstance(whole.find_loop("Gemm.Tiles"), EngineeringLoop)
    assert isinstance(task.find_loop(), Task)
    assert whole.system_of(whole.find_loop("Improve")) == "Gemm"
    assert task.system_of(task.find_loop()) is None
    assert tuner.find_loop().name == "T"
    with pytest.raises(KnowledgeError, match=r"name one of Gemm.Improve, Gemm.Watch, Gemm.Tiles"):
        whole.find_loop()
    with pytest.raises(KnowledgeError, match="did you mean `Improve`"):
        whole.find_loop("Imprve")
    with pytest.raises(KnowledgeError, match="has no loop and no task"):
        load_text(FUSE).find_loop()


def test_words_that_stand_for_themselves_become_strings_when_executed() -> None:
    program = load_text(WHOLE)
    (write,) = program.procedure("note").body
    sweep = program.systems["Gemm"].agent_loops[0].steps[2].body[0]

    assert {one.key: one.value for one in write.arguments}["mode"] == Literal("append")  # type: ignore[union-attr]
    assert {one.key: one.value for one in sweep.arguments}["name"] == Literal("Tiles")  # type: ignore[union-attr]


def test_a_scope_of_a_system_has_its_constants_and_the_values_of_its_spaces() -> None:
    scope = load_text(WHOLE).scope(system="Gemm")

    assert evaluate(Name("ENOUGH"), scope) == 0.85
    assert evaluate(Name("order"), scope) == ["row", "column"]


def test_a_used_module_is_found_beside_the_file_and_its_names_are_known(folder: Path) -> None:
    program = load(folder / "user.mk")

    assert list(program.cases) == ["Shared.Perf", "User.Mine"]
    assert source(program.fact("crawling").fact.body) == "slow(t) and t.latency > 60000 ms"
    assert program.rules["User.Stop"].facts == ("Shared.slow",)
    assert program.used == {"shared.mk": SHARED}
    assert evaluate(Name("LIMIT"), program.scope()) == 2


def test_the_hash_covers_the_text_and_the_texts_of_all_used_modules(folder: Path) -> None:
    before = load(folder / "user.mk").sha256

    (folder / "shared.mk").write_text(SHARED + "\n// changed\n")
    changed = load(folder / "user.mk").sha256
    (folder / "shared.mk").write_text(SHARED)

    assert load(folder / "user.mk").sha256 == before != changed
    assert len(before) == 64


def test_given_texts_stand_in_for_files() -> None:
    program = load_text(USER, used={"shared.mk": SHARED})

    assert "Shared.slow" in program.facts


def test_a_module_used_by_two_is_loaded_once(folder: Path) -> None:
    (folder / "other.mk").write_text('use "shared.mk"\nsystem Other { }')
    (folder / "top.mk").write_text(
        'use "user.mk"\nuse "other.mk"\nsystem Top { knowledge { fact f(t: Perf) { return slow(t) } } }'
    )

    program = load(folder / "top.mk")

    assert sorted(program.used) == ["other.mk", "shared.mk", "user.mk"]
    assert list(program.facts) == ["Shared.slow", "User.crawling", "Top.f"]


def test_modules_that_use_each_other_in_a_circle_are_a_diagnostic(folder: Path) -> None:
    (folder / "a.mk").write_text('use "b.mk"\nsystem A { }')
    (folder / "b.mk").write_text('use "a.mk"\nsystem B { }')
    (folder / "self.mk").write_text('use "self.mk"')

    for name, chain in (("a.mk", "a.mk -> b.mk -> a.mk"), ("self.mk", "self.mk -> self.mk")):
        with pytest.raises(KnowledgeError) as caught:
            load(folder / name)
        assert [one.code for one in caught.value.diagnostics] == ["K110"]
        assert chain in str(caught.value)


def test_one_name_for_two_files_is_a_diagnostic_and_not_the_wrong_one_of_them(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "x.mk").write_text("domain Here { type A matches { a: int } }")
    (folder / "sub" / "x.mk").write_text("domain There { type B matches { b: int } }")
    (folder / "sub" / "m.mk").write_text('use "x.mk"')
    (folder / "sub" / "same.mk").write_text('use "../x.mk"')

    for uses in ('use "sub/m.mk"\nuse "x.mk"', 'use "x.mk"\nuse "sub/m.mk"'):
        (folder / "top.mk").write_text(f"{uses}\nsystem S {{ model {{ state s: A }} }}")
        with pytest.raises(KnowledgeError) as caught:
            load(folder / "top.mk")
        assert [(one.code, one.span.line) for one in caught.value.diagnostics] == [("K109", 2)]
        assert "`x.mk` names two modules here, in two folders" in str(caught.value)

    (folder / "top.mk").write_text('use "sub/same.mk"\nuse "x.mk"\nsystem S { model { state s: A } }')
    load(folder / "top.mk")  # one file by two names is one file


def test_modules_that_many_use_are_read_once_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth, read = 12, list[str]()
    for level in range(depth):
        for side in "fg":
            uses = f'use "f{level + 1}.mk"\nuse "g{level + 1}.mk"\n' if level + 1 < depth else ""
            (folder / f"{side}{level}.mk").write_text(f"{uses}domain {side.upper()}{level} {{ }}")
    parse = loading.parse

    def counting(text: str, path: str) -> object:
        read.append(path)
        return parse(text, path)

    monkeypatch.setattr(loading, "parse", counting)
    load(folder / "f0.mk")
    assert len(read) == 2 * depth - 1

    read.clear()
    (folder / f"f{depth - 1}.mk").write_text("domain { broken")
    with pytest.raises(KnowledgeError):
        load(folder / "f0.mk")
    assert len(read) == 2 * depth - 1


def test_a_line_of_modules_has_an_end(folder: Path) -> None:
    for level in range(1500):
        (folder / f"m{level}.mk").write_text(f'use "m{level + 1}.mk"')
    (folder / "m1500.mk").write_text("domain Last { }")

    with pytest.raises(KnowledgeError) as caught:
        load(folder / "m0.mk")

    (one,) = caught.value.diagnostics
    assert (one.code, one.message) == (
        "K109",
        "modules use each other more than 100 deep: name some of them in one module",
    )
    load(folder / "m1410.mk")


def test_a_used_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mk")
    (folder / "top.mk").write_text('use "pipe.mk"')

    with pytest.raises(KnowledgeError, match=r"pipe\.mk is no file"):
        load(folder / "top.mk")


def test_a_missing_module_is_a_diagnostic_at_its_use() -> None:
    found = failure('\nuse "nowhere.mk"\nsystem A { knowledge { fact f(t: There) { return t.x > 1 } } }')

    (one,) = found.diagnostics
    assert (one.code, one.span.line, one.span.column) == ("K109", 2, 1)
    assert "there is no file nowhere.mk" in one.message


def test_a_missing_standard_module_names_those_there_are() -> None:
    found = failure("use std.trainnig")

    assert found.diagnostics[0].code == "K109"
    assert "no standard module `std.trainnig`" in str(found)
    assert not loading.library() or found.diagnostics[0].hint


def test_a_used_module_with_errors_says_its_first_one() -> None:
    found = failure('use "bad.mk"', bad="system B { knowledge { fact f(t: No) { return true } } }")

    assert "`bad.mk` cannot be used: bad.mk:1:24: error[K103]: no case is called `No`" in str(found)


def test_a_system_of_the_same_name_as_a_used_one_is_a_diagnostic() -> None:
    found = failure('use "shared.mk"\nsystem Shared { }', shared=SHARED)

    assert [(one.code, one.span.line) for one in found.diagnostics] == [("K111", 2)]


def test_a_module_used_twice_is_a_diagnostic() -> None:
    assert [one.code for one in failure('use "shared.mk"\nuse "shared.mk"', shared=SHARED).diagnostics] == ["K107"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\x02\x01\x01\x00\xff", "is not UTF-8 text"),
        (b"system A { \x00 }", "null bytes"),
        (b"\xff\xfes\x00y\x00", "is not UTF-8 text"),
    ],
)
def test_what_is_no_text_is_said_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "binary.mk"
    path.write_bytes(content)

    with pytest.raises(KnowledgeError, match=message) as caught:
        load(path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.mk", ".", "a" * 300, "nul\0.mk"])
def test_what_is_no_file_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(KnowledgeError) as caught:
        load(tmp_path / name)

    assert "\n" not in str(caught.value)


def test_windows_line_ends_and_a_byte_order_mark_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "windows.mk"
    path.write_bytes(b"\xef\xbb\xbf" + FUSE.replace("\n", "\r\n").encode())

    assert load(path).sha256 == load_text(FUSE).sha256


def test_an_error_is_one_line_and_renders_all_with_their_source() -> None:
    found = failure("system S {\n  function f(a: int): int { return b + c }\n}")

    assert str(found).startswith("test.mk:2:36: error[K101]: nothing here is called `b` (and 1 more")
    assert "\n" not in str(found)
    assert found.render().count("^") == 2


def test_tools_of_other_packages_are_known_by_their_signatures() -> None:
    tools = {"tool.compile": Signature("tool.compile", {"source": ParameterSpec("string", required=True)}, "string")}

    program: Program = load_text('task T { step s: tool.compile { source: "x" } }', tools=tools)

    assert program.tasks["T"].steps[0].name == "s"
    with pytest.raises(KnowledgeError, match=r"no tool is called `tool.run`"):
        load_text('task T { step s: tool.run { cmd: "x" } }', tools=tools)


def test_a_half_read_module_is_not_blamed_for_what_could_not_be_read() -> None:
    found = failure(
        "system S { trace_schema { variant V { case C { x: } } } knowledge { fact f(t: C) { return t.x > 1 } } }"
    )

    assert all(not one.code.startswith("K") for one in found.diagnostics)


TWO = """
system A {
  const LIMIT = 1
  trace_schema { variant V { case C { x: float } } }
  knowledge { fact high(t: C) { return t.x > LIMIT } fact very(t: C) { return high(t) && t.x > bound(LIMIT) } }
  function bound(a: float): float { return 2 * a }
  agent_loop L { step s { emit C { x: 1.0 } if high(trace.latest(C)) { emit V.C { x: 2.0 } } } }
}
system B {
  const LIMIT = 10
  trace_schema { variant V { case C { x: float } } }
  knowledge { fact high(t: C) { return t.x > LIMIT } fact very(t: C) { return high(t) && t.x > bound(LIMIT) } }
  function bound(a: float): float { return 3 * a }
}
"""


def test_what_two_systems_name_alike_stays_apart() -> None:
    program = load_text(TWO)
    first, second = Item("A.C", {"x": 5.0}), Item("B.C", {"x": 35.0})
    scope = program.scope(items=[first, second], system="B")

    assert evaluate_fact(program.fact("A.very").fact, first, scope) is True
    assert evaluate_fact(program.fact("B.very").fact, second, scope) is True
    assert evaluate_fact(program.fact("B.very").fact, Item("B.C", {"x": 25.0}), scope) is False
    assert evaluate_fact(program.fact("A.very").fact, second, scope) is None
    emit, condition = program.systems["A"].agent_loops[0].steps[0].body
    assert isinstance(emit, Emit)
    assert isinstance(condition, If)
    assert (program.case(emit.case).name, source(condition.condition)) == ("A.C", "A.high(trace.latest(A.C))")


def test_a_sealed_text_reads_no_file_and_says_which_text_is_missing(folder: Path) -> None:
    secret = folder / "secret.mk"
    secret.write_text("system Sec { const TOKEN = 3 }")
    for target in ("shared.mk", str(secret), f"../{folder.name}/secret.mk", "/etc/passwd"):
        with pytest.raises(KnowledgeError) as caught:
            load_text(f'use "{target}"\nsystem A {{ }}', str(folder / "a.mk"), sealed=True)
        (one,) = caught.value.diagnostics
        assert (one.code, one.message) == (
            "K109", f"the log does not hold the text of `{target}`: load the module again where that file is"
        )  # fmt: skip

    assert list(load_text(USER, "shared.mk", used={"shared.mk": SHARED}, sealed=True).systems) == ["Shared", "User"]
    load_text("use std.training", sealed=True)


def test_what_cannot_change_the_meaning_of_a_sealed_text_is_not_held_against_it() -> None:
    text = (
        "system S { trace_schema { variant V { case C { x: float } } } "
        "knowledge { fact no(t: C) { return t.x > 2 && t.x < 1 } fact No(t: C) { return t.x > 2 } } }"
    )
    with pytest.raises(KnowledgeError):
        load_text(text)

    assert list(load_text(text, sealed=True).facts) == ["S.no", "S.No"]
