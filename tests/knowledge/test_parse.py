"""What the language can say, construct by construct, and what the tree says of it."""

import pytest

from morphogen.schemas.knowledge import tree as t
from morphogen.schemas.knowledge.diagnostics import render
from morphogen.schemas.knowledge.parse import parse


def read(source: str) -> t.Module:
    """Parse a source that must have nothing wrong with it."""
    parsed = parse(source)
    assert [render(one, source) for one in parsed.diagnostics] == []
    return parsed.module


def system(body: str) -> t.System:
    return read(f"system S {{ {body} }}").systems[0]


def expression(source: str) -> t.Expr:
    return system(f"const X = {source}").constants[0].value


def statements(source: str) -> tuple[t.Statement, ...]:
    return read(f"task T {{ step s {{\n{source}\n}} }}").tasks[0].steps[0].body


def text(value: str) -> t.Literal:
    return t.Literal(value)


def test_a_task_file_of_the_first_generation_is_read() -> None:
    module = read(
        """
        system_model Ops { axiom: "verify first" heuristic: "small steps" prediction: "works" axiom: "twice" }
        task Greet {
          step probe: tool.run { cmd: "echo 41" output_var: n }
          step ask: llm.query { role: "r" prompt_template: "n={{n}} rule={{axiom.0}}" output_var: a }
          evaluation { check ok: tool.run { cmd: "echo 1" output_var: s } check more: s > 3 }
          success: file_exists("out.txt") other(1, "b")
        }
        """
    )

    model = t.SystemModel("Ops", (text("verify first"), text("twice")), (text("small steps"),), (text("works"),))
    prompt = t.Template(("n=", t.Name("n"), " rule=", t.Index(t.Name("axiom"), t.Literal(0))))
    task = module.tasks[0]
    assert module.models == (model,)
    assert task.steps[0].body == (t.Action("tool.run", (t.Property("cmd", text("echo 41")),), "n"),)
    assert task.steps[1].body[0] == t.Action(
        "llm.query", (t.Property("role", text("r")), t.Property("prompt_template", prompt)), "a"
    )
    assert task.evaluation[1] == t.Check("more", t.Binary(">", t.Name("s"), t.Literal(3)))
    assert task.success == (
        t.Call("file_exists", (text("out.txt"),)),
        t.Call("other", (t.Literal(1), text("b"))),
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("-1e-4", t.Literal(-1e-4)),
        ("1_000", t.Literal(1000)),
        ("3 ms", t.Literal(3, "ms")),
        ("1.2GB/s", t.Literal(1.2, "GB/s")),
        ("95%", t.Literal(95, "%")),
        ("7 % 3", t.Binary("%", t.Literal(7), t.Literal(3))),
        ("7%3", t.Binary("%", t.Literal(7), t.Literal(3))),
        ("null", t.Literal(None)),
        ("'single'", t.Literal("single")),
        (r'"tab\t \u{1F600} \"q\""', t.Literal('tab\t 😀 "q"')),
        (r'"\{\{no hole}}"', t.Literal("{{no hole}}")),
        ("größe + 名前", t.Binary("+", t.Name("größe"), t.Name("名前"))),
        ("a or b and not c == d", t.Binary("or", t.Name("a"), t.Binary("and", t.Name("b"), t.Unary("not", t.Binary("==", t.Name("c"), t.Name("d")))))),
        ("a || b && !c", t.Binary("or", t.Name("a"), t.Binary("and", t.Name("b"), t.Unary("not", t.Name("c"))))),
        ("a - b - c * -d", t.Binary("-", t.Binary("-", t.Name("a"), t.Name("b")), t.Binary("*", t.Name("c"), t.Unary("-", t.Name("d"))))),
        ("x not in [1, 2,]", t.Binary("not in", t.Name("x"), t.ListExpr((t.Literal(1), t.Literal(2))))),
        ("trace.latest(Case).loss[0]", t.Index(t.Field(t.Call("trace.latest", (t.Name("Case"),)), "loss"), t.Literal(0))),
        ("avg(t.loss) over last 100 per a, b", t.Call("avg", (t.Field(t.Name("t"), "loss"),), t.Window(100, None, ("a", "b")))),
        ("count() over 5m", t.Call("count", (), t.Window(None, 300 * 10**9))),
        ("p95(x) per layer", t.Call("p95", (t.Name("x"),), t.Window(per=("layer",)))),
        ("range[1e-5, 1] log", t.RangeExpr(t.Literal(1e-5), t.Literal(1), None, True)),
        ("range[1, 9, 2]", t.RangeExpr(t.Literal(1), t.Literal(9), t.Literal(2))),
        ('{ a: 1, "b c": { d: [] } }', t.MapExpr((t.Property("a", t.Literal(1)), t.Property("b c", t.MapExpr((t.Property("d", t.ListExpr(())),)))))),
        ("design_space + tuning_space", t.Binary("+", t.Name("design_space"), t.Name("tuning_space"))),
        ("if + step * over.per", t.Binary("+", t.Name("if"), t.Binary("*", t.Name("step"), t.Field(t.Name("over"), "per")))),
    ],
)  # fmt: skip
def test_an_expression_is_read_by_the_usual_precedence(source: str, expected: t.Expr) -> None:
    assert expression(source) == expected


def test_a_text_of_several_lines_loses_the_indentation_that_its_lines_share() -> None:
    assert expression('"""\n      select 1\n        from x\n\n      """') == t.Literal("select 1\n  from x\n\n")
    assert expression('"""one {{ a + 1 }}\n   b"""') == t.Template(
        ("one ", t.Binary("+", t.Name("a"), t.Literal(1)), "\nb")
    )


def test_types_are_named_measured_chosen_listed_shaped_and_optional() -> None:
    (case,) = (
        system(
            """trace_schema { variant V { case C from "health.layer" {
             a: int, b: float in GB/s; c: "x" | "y" d: [string]? e: -1 | 2, f: float | null g: [M, N], h: float in %
           } } }"""
        )
        .variants[0]
        .cases
    )

    assert case.source == "health.layer"
    assert [one.type for one in case.fields] == [
        t.NamedType("int"),
        t.NamedType("float", "GB/s"),
        t.EnumType(("x", "y")),
        t.OptionalType(t.ListType(t.NamedType("string"))),
        t.EnumType((-1, 2)),
        t.OptionalType(t.NamedType("float")),
        t.ListType(t.NamedType("int"), ("M", "N")),
        t.NamedType("float", "%"),
    ]


def test_statements_act_emit_assign_branch_loop_and_return() -> None:
    found = statements(
        """
        tool.run { cmd: "x" } -> emit TraceItem.Perf
        y = tool.run { cmd: "x" } -> emit
        z = y + 1
        emit TraceItem.Perf { tflops: z }
        emit Done
        if fact(trace.latest) { emit A } else if z { emit B } else { emit C }
        for tile in [1, 2] { x = tile }
        return
        z = 2
        return z
        """
    )

    assert found[0] == t.Action("tool.run", (t.Property("cmd", text("x")),), None, "TraceItem.Perf")
    assert found[1] == t.Action("tool.run", (t.Property("cmd", text("x")),), "y", "")
    assert found[3:5] == (t.Emit("TraceItem.Perf", (t.Property("tflops", t.Name("z")),)), t.Emit("Done"))
    assert found[5] == t.If(
        t.Call("fact", (t.Field(t.Name("trace"), "latest"),)),
        (t.Emit("A"),),
        (t.If(t.Name("z"), (t.Emit("B"),), (t.Emit("C"),)),),
    )
    assert found[6] == t.For("tile", t.ListExpr((t.Literal(1), t.Literal(2))), (t.Assign("x", t.Name("tile")),))
    assert found[7:] == (t.Return(), t.Assign("z", t.Literal(2)), t.Return(t.Name("z")))


def test_a_returned_value_may_stand_on_the_next_line() -> None:
    assert system("function f(a: int) { return // why\n not { b: a } }").functions[0].body == t.Unary(
        "not", t.MapExpr((t.Property("b", t.Name("a")),))
    )
    assert system("function f(a: int) { return\n if }").functions[0].body == t.Name("if")
    assert [type(one) for one in statements("return // c\n tool // d\n .use /* e */ { }")] == [t.Return, t.Action]
    assert [type(one) for one in statements("return // c\n x /* d */ = 3")] == [t.Return, t.Assign]
    assert statements("return\n x == 3") == (t.Return(t.Binary("==", t.Name("x"), t.Literal(3))),)


def test_knowledge_holds_facts_rules_hints_and_invariants_with_bare_and_quoted_names() -> None:
    found = system(
        """knowledge {
             fact slow(t: V.C) { return t.x < 3 }
             fact "seen once" { description: "d", confidence: 0.5, source: "s" }
             rule "Fuse it" { when: [slow, fast] apply: "a" recommend: "b" recommend: "c" effect: "e" reason: "r"
                              parameter TILE: [1, 2] optimize: tflops }
             rule bare { when: "as text" when: slow }
             hint "H" { trigger: "often" suggestion: "do" }
             invariant I { assert: x < 1e-2 constraint: "c" verification: "v" }
           }"""
    )

    assert found.facts == (t.Fact("slow", "t", "V.C", t.Binary("<", t.Field(t.Name("t"), "x"), t.Literal(3))),)
    assert [one.key for one in found.recorded[0].properties] == ["description", "confidence", "source"]
    assert found.rules[0] == t.Rule(
        "Fuse it",
        (t.Name("slow"), t.Name("fast")),
        (text("a"),),
        (text("b"), text("c")),
        text("e"),
        (t.Property("TILE", t.ListExpr((t.Literal(1), t.Literal(2)))),),
        t.Name("tflops"),
        (t.Property("reason", text("r")),),
    )
    assert found.rules[1].when == (text("as text"), t.Name("slow"))
    assert found.hints == (t.Hint("H", (text("often"),), (text("do"),)),)
    assert found.invariants[0].asserts == (t.Binary("<", t.Name("x"), t.Literal(1e-2)),)


def test_loops_of_all_three_kinds_are_read() -> None:
    found = system(
        """
        agent_loop A { budget: 3 step a: tool.run { cmd: "x" } evaluation { check c: best > 1 } success: done() }
        service_loop S { on asked(q, r) { emit X } on "health.layer" { return } on V.C(t: int) { emit Y } }
        engineering_loop E { sampler: "tpe" parameter P: [1] measure { cmd: "x {{P}}" objective: "maximize" }
                             step s { x = 1 } }
        """
    )

    assert found.agent_loops[0].properties == (t.Property("budget", t.Literal(3)),)
    assert found.agent_loops[0].success == (t.Call("done", ()),)
    first, second, third = found.service_loops[0].handlers
    assert (first.event, first.parameters) == ("asked", ("q", "r"))
    assert second == t.Handler("health.layer", (), (t.Return(),))
    assert third.declared == (t.FieldDecl("t", t.NamedType("int")),)
    assert found.engineering_loops[0].parameters == (t.Property("P", t.ListExpr((t.Literal(1),))),)
    assert found.engineering_loops[0].measure is not None


def test_sections_may_come_in_pieces_and_in_any_order() -> None:
    found = system(
        'build { artifact "a" } model { state x: int } build { artifact b.md { input: trace.all } } model { }'
    )

    assert [one.name for one in found.artifacts] == ["a", "b.md"]
    assert found.states == (t.StateDecl("x", t.NamedType("int")),)


def test_front_matter_is_metadata_and_a_file_may_begin_with_a_byte_order_mark() -> None:
    module = read(
        '\ufeff---\ntitle: "A: b"  \n# no\ntags: [a, b] # x\nempty:\n---\n# c\nuse std.training\nuse "o.mk"\n'
    )

    assert module.metadata == (("title", "A: b"), ("tags", "[a, b]"), ("empty", ""))
    assert module.uses == (t.Use("std.training"), t.Use("o.mk"))


@pytest.mark.parametrize("word", ["step", "type", "state", "metric", "case", "in", "not", "true", "range", "success"])
def test_any_keyword_may_be_a_field_or_a_key(word: str) -> None:
    found = system(
        f"trace_schema {{ variant V {{ case C {{ {word}: int }} }} }} "
        f"knowledge {{ fact f(t: V.C) {{ return t.{word} > 1 }} }} design_space {{ {word}: [1] }}"
    )

    assert found.variants[0].cases[0].fields[0].name == word
    assert found.facts[0].body == t.Binary(">", t.Field(t.Name("t"), word), t.Literal(1))
    assert found.spaces[0].entries[0].key == word


def test_every_node_knows_where_it_stands() -> None:
    source = 'system S {\n  const X = 1 +\n    "a {{ b.c }}"\n}\n'
    (constant,) = read(source).systems[0].constants
    value = constant.value
    assert isinstance(value, t.Binary)
    assert isinstance(value.right, t.Template)
    inner = value.right.parts[1]
    assert isinstance(inner, t.Field)

    assert (constant.span.line, constant.span.column) == (2, 3)
    assert source[value.span.start : value.span.end] == '1 +\n    "a {{ b.c }}"'
    assert (inner.span.line, inner.span.column, source[inner.span.start : inner.span.end]) == (3, 11, "b.c")


def test_the_comments_of_a_file_come_with_it() -> None:
    parsed = parse("// a\nsystem S { /* b */ const X = 1 # c\n}")

    assert [(one.text, one.span.line) for one in parsed.comments] == [("// a", 1), ("/* b */", 2), ("# c", 2)]
