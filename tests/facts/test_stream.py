"""The stream says of every item what the reference says, however the trace is cut."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.schemas.knowledge.stream import Engine, State, lower
from morphogen.schemas.knowledge.tree import Fact

from .traces import CASE, FIELDS, KINDS, Probe, cut, facts, items_of, probes, reference, scope_of


def engine_of(some: list[Fact]) -> Engine:
    scope = scope_of(some)
    return Engine([lower(one, FIELDS, scope, name=one.name, case=CASE) for one in some], KINDS)


def streamed(some: list[Fact], trace: list[Probe], cuts: list[int]) -> tuple[list[list[Any]], list[Any]]:
    engine, state = engine_of(some), State()
    truth: list[list[Any]] = [[] for _ in some]
    changes: list[Any] = []
    for first, piece in cut(trace, cuts):
        verdicts = engine.feed(items_of(piece, first), state)
        for number in range(len(some)):
            flag = verdicts.truth(number)
            truth[number] += flag.plain(slice(None))  # type: ignore[arg-type]
        change = verdicts.changes
        for fact, item, holds, begun in zip(*(one.tolist() for one in change), strict=True):
            place = (int(verdicts.items.seq[item]), int(verdicts.items.idx[item]))
            changes.append((fact, place, holds, begun, verdicts.keys(fact, change.item[:0])))
    return truth, changes


@settings(max_examples=25)
@given(facts(), probes(), st.lists(st.integers(0, 40), max_size=5))
def test_a_fact_is_true_in_the_stream_exactly_where_the_reference_says_so(
    some: list[Fact], trace: list[Probe], cuts: list[int]
) -> None:
    truth, _ = streamed(some, trace, cuts)

    assert truth == reference(some, trace)


@settings(max_examples=20)
@given(facts(), probes(), st.lists(st.integers(0, 40), max_size=8))
def test_cuts_do_not_show(some: list[Fact], trace: list[Probe], cuts: list[int]) -> None:
    assert streamed(some, trace, cuts) == streamed(some, trace, [])
