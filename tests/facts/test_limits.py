"""What is large, deep, empty or unknown is dealt with, or refused in one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from morphogen.consumers.projections import Store
from morphogen.schemas import Metrics
from morphogen.schemas.knowledge.cases import case_event, case_type, make_item, snake
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.program import load_text
from morphogen.schemas.knowledge.stream import Engine, NotExecutable, State, condition, lower
from morphogen.schemas.knowledge.stream.stored import from_bytes, to_bytes
from morphogen.schemas.knowledge.tree import Binary, Call, Fact, Field, Literal, Name, Unary

from ..projections.conftest import Log
from .modules import MATMUL, loaded, program
from .traces import CASE, FIELDS, KINDS, Probe, items_of, scope_of

OpenStore = Callable[..., Store]
CatchUp = Callable[..., int]
Ask = Callable[..., list[Any]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"step_name": "a", "tflops": "fast", "bound": "mem"}, "`tflops` is string"),
        ({"step_name": "a", "tflops": 1.0, "bound": "men"}, 'did you mean "mem"'),
        ({"step_name": "a", "bound": "mem"}, "`tflops` is missing"),
        ({"step_name": "a", "tflops": 1.0, "bound": "mem", "tflop": 1.0}, "no field `tflop`"),
    ],
)
def test_an_item_that_is_not_what_its_case_declares_is_refused_by_field(values: dict[str, Any], said: str) -> None:
    with pytest.raises(KnowledgeError, match=r"MatMul\.Performance") as error:
        make_item(program(), "Performance", values)

    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_is_a_reading_and_an_int_is_a_float() -> None:
    item: Any = make_item(program(), "Performance", {"step_name": "a", "tflops": float("nan"), "bound": "mem"})
    other: Any = make_item(program(), "Performance", {"step_name": "a", "tflops": 3, "bound": "mem"})

    assert np.isnan(item.tflops)
    assert isinstance(other.tflops, float)


def test_one_event_type_cannot_be_two_things_and_equal_declarations_share_it() -> None:
    first = case_event(load_text(MATMUL, "one.mk"), "Correctness")

    assert case_event(load_text(MATMUL, "two.mk"), "Correctness") is first
    with pytest.raises(KnowledgeError, match=r"other\.mk.*one\.mk|other\.mk.*matmul\.mk"):
        case_event(load_text(MATMUL.replace("max_error: float", "max_error: int"), "other.mk"), "Correctness")


def test_names_of_cases_are_words_of_event_types() -> None:
    assert case_type("MatMul", "Performance") == "trace.mat_mul.performance"
    assert [snake(name) for name in ("FMHA", "LoopLM", "a-b", "2D")] == ["fmha", "loop_lm", "a_b", "n2_d"]
    assert snake("Größe").startswith("grosse") or snake("Größe").startswith("gro")
    assert len({snake(name) for name in ("矩阵", "向量")}) == 2


def test_an_expression_that_is_too_deep_is_refused_and_not_a_crash() -> None:
    body: Any = Field(Name("t"), "b")
    for _ in range(5000):
        body = Unary("not", body)

    with pytest.raises(NotExecutable, match="levels"):
        lower(Fact("deep", "t", CASE, body), FIELDS, scope_of([]))


def test_facts_that_double_with_every_call_are_refused() -> None:
    some = [Fact("f0", "t", CASE, Field(Name("t"), "b"))]
    for n in range(1, 30):
        before = Call(f"f{n - 1}", (Name("t"),))
        some.append(Fact(f"f{n}", "t", CASE, Binary("==", before, before)))

    with pytest.raises(NotExecutable, match="parts"):
        lower(some[-1], FIELDS, scope_of(some))


def test_ten_thousand_facts_are_judged_in_one_go() -> None:
    some = [Fact(f"f{n}", "t", CASE, Binary(">", Field(Name("t"), "x"), Literal(n / 100.0))) for n in range(10_000)]
    scope = scope_of(some)
    engine = Engine([lower(one, FIELDS, scope, name=one.name, case=CASE) for one in some], KINDS)
    trace = [Probe("r", 1, "measured", {**dict.fromkeys(FIELDS), "x": x, "n": 1}) for x in (50.0, 20.0)]

    verdicts = engine.feed(items_of(trace), State())

    assert len(verdicts.changes.fact) == 10_000 + 3000
    assert verdicts.holds("f1999").tolist() == [True, True]
    assert verdicts.holds("f2000").tolist() == [True, False]


def test_empty_batches_and_traces_of_nan_say_nothing_and_break_nothing() -> None:
    made = program()
    engine = Engine([condition(made, "MatMul.diverges")], {"loss": "number", "lr": "number", "step": "int"})
    state = State()
    fields = {"loss": float("nan"), "lr": None, "step": 1}
    from morphogen.schemas.knowledge.stream import Items, integers, numbers, texts

    def items(count: int) -> Items:
        place = np.arange(count)
        values: dict[str, Any] = {
            "loss": numbers([fields["loss"]] * count), "lr": numbers([None] * count), "step": integers([1] * count),
        }  # fmt: skip
        return Items(place + 1, place * 0, place * 0, texts(["r"] * count), place * 0, values)

    for count in (0, 3, 0, 5):
        verdicts = engine.feed(items(count), state)
        assert not verdicts.truth(0).true.any()
        assert len(verdicts.truth(0)) == count


def test_what_the_engine_remembers_survives_as_bytes() -> None:
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from .test_stream import engine_of
    from .traces import cut, facts, probes

    @settings(max_examples=15)
    @given(facts(), probes(), st.lists(st.integers(0, 40), max_size=4))
    def check(some: list[Fact], trace: list[Probe], cuts: list[int]) -> None:
        engine, kept, stored = engine_of(some), State(), State()
        for first, piece in cut(trace, cuts):
            one, other = engine.feed(items_of(piece, first), kept), engine.feed(items_of(piece, first), stored)
            for number in range(len(some)):
                assert (one.truth(number).true == other.truth(number).true).all()
            stored = {run: from_bytes(to_bytes({"c": state}))[0]["c"] for run, state in stored.items()}

    check()


def test_a_module_of_many_facts_becomes_as_many_views(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    many = " ".join(f"fact f{n}(t: Item.Step) {{ return t.loss > {n} }}" for n in range(150))
    text = (
        'system Many { trace_schema { variant Item { case Step from "metrics.scalars" { loss: float } } } '
        f"knowledge {{ {many} }} }}"
    )
    log.write(loaded(text, "many.mk"))
    log.write(Metrics(values={"loss": 70.5}))
    store = open_store()
    catch_up(store, log)

    assert ask(store, "SELECT count(*), count(*) FILTER (holds) FROM facts_now WHERE system = 'Many'") == [(150, 71)]
    assert ask(store, "SELECT holds FROM fact_many_f70 UNION ALL SELECT holds FROM fact_many_f71") == [
        (True,),
        (False,),
    ]
