"""SQL, the stream and the reference say the same of every item."""

from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.projections.facts.sql import Relation, fact_sql
from morphogen.schemas import json_text
from morphogen.schemas.knowledge.stream import Engine, State, lower
from morphogen.schemas.knowledge.tree import Fact

from .traces import CASE, FIELDS, KINDS, LISTS, Probe, cut, facts, items_of, probes, reference, scope_of

RELATION = Relation("items", {name: name for name in FIELDS}, ("seq", "idx"), ("seq", "idx"), frozenset({"x", "y"}))
TABLE = (
    "CREATE OR REPLACE TABLE items(seq BIGINT, idx INTEGER, run VARCHAR, time TIMESTAMP_NS, origin VARCHAR, "
    'x DOUBLE, y DOUBLE, n BIGINT, s VARCHAR, b BOOLEAN, layer VARCHAR, xs JSON, ns JSON, ss JSON, "any" JSON)'
)


def sql_truth(con: duckdb.DuckDBPyConnection, some: list[Fact], trace: list[Probe]) -> list[list[bool | None]]:
    con.execute(TABLE)
    rows = pa.table(
        {
            "seq": [i // 3 + 1 for i in range(len(trace))],
            "idx": [i % 3 for i in range(len(trace))],
            "run": pa.array([probe.run for probe in trace], pa.string()),
            "time": pa.array([probe.time for probe in trace], pa.timestamp("ns")),
            "origin": pa.array([probe.origin for probe in trace], pa.string()),
            **{
                name: pa.array([probe.values[name] for probe in trace], kind)
                for name, kind in {
                    "x": pa.float64(), "y": pa.float64(), "n": pa.int64(), "s": pa.string(), "b": pa.bool_(),
                    "layer": pa.string(),
                }.items()
            },
            **{
                name: pa.array([None if some is None else json_text(some, literals=True) for some in column], pa.string())
                for name in LISTS for column in [[probe.values[name] for probe in trace]]
            },
        }
    )  # fmt: skip
    con.register("incoming", rows)
    con.execute("INSERT INTO items SELECT * FROM incoming ORDER BY hash(seq, idx)")
    conditions = [lower(one, FIELDS, scope_of(some), name=one.name, case=CASE) for one in some]
    out = []
    for condition in conditions:
        found = con.execute(f"SELECT truth, holds FROM ({fact_sql(condition, RELATION)}) ORDER BY seq, idx").fetchall()
        assert [bool(truth) for truth, _ in found] == [holds for _, holds in found]
        out.append([truth for truth, _ in found])
    return out


def stream_truth(some: list[Fact], trace: list[Probe], cuts: list[int]) -> list[list[Any]]:
    scope = scope_of(some)
    engine, state = Engine([lower(one, FIELDS, scope, name=one.name, case=CASE) for one in some], KINDS), State()
    truth: list[list[Any]] = [[] for _ in some]
    for first, piece in cut(trace, cuts):
        verdicts = engine.feed(items_of(piece, first), state)
        for number in range(len(some)):
            truth[number] += verdicts.truth(number).plain(slice(None))  # type: ignore[arg-type]
    return truth


CON = duckdb.connect(config={"threads": 1})


@settings(max_examples=25)
@given(facts(), probes(), st.lists(st.integers(0, 40), max_size=5))
def test_sql_the_stream_and_the_reference_agree_on_every_item(
    some: list[Fact], trace: list[Probe], cuts: list[int]
) -> None:
    expected = reference(some, trace)

    assert stream_truth(some, trace, cuts) == expected
    assert sql_truth(CON, some, trace) == expected
