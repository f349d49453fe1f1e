"""Columns on their way to Arrow: what tables of one batch share is made once."""

import datetime as dt
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from morphogen.consumers.projections import Columns, DeclarationError
from morphogen.consumers.projections.fold.arrays import Words, strings
from morphogen.consumers.projections.fold.rows import Made
from morphogen.consumers.projections.projection import _columns


def test_tables_of_one_batch_share_what_was_made_of_their_columns() -> None:
    seq, run = np.arange(3), strings(["a", "b", "a"])
    made: Made = {}
    first = Columns({"seq": seq, "run": run, "value": [1.0, None, 3.0]})
    second = Columns({"seq": seq, "run": run, "n": np.arange(3)})

    one = first.arrow({"seq": "BIGINT", "run": "VARCHAR", "value": "DOUBLE"}, made)
    two = second.arrow({"seq": "BIGINT", "run": "VARCHAR", "n": "BIGINT"}, made)

    assert one.to_pydict() == {"seq": [0, 1, 2], "run": ["a", "b", "a"], "value": [1.0, None, 3.0]}
    assert two.to_pydict() == {"seq": [0, 1, 2], "run": ["a", "b", "a"], "n": [0, 1, 2]}
    assert len(made) == 4


def test_one_column_can_have_two_types() -> None:
    values = [1, 2]
    made: Made = {}

    table = Columns({"a": values, "b": values}).arrow({"a": "BIGINT", "b": "DOUBLE"}, made)

    assert [str(field.type) for field in table.schema] == ["int64", "double"]


def test_words_that_were_kept_from_the_last_batch_are_not_those_of_another() -> None:
    for words in (["x", "y"], ["x", "z"], ["x", "y"], ["é", "\ud800"], [""], []):
        codes = np.array([*range(len(words)), -1], np.int32)

        assert Words(codes, words).arrow().to_pylist() == [
            *(w.encode("utf-8", "replace").decode() for w in words),
            None,
        ]


def stored(kind: str, batches: list[list[Any]]) -> list[Any]:
    """Return, as text, what a DuckDB column of this type holds after the batches."""
    (kind,) = _columns("mine", "t", f"x {kind}").values()
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t(x {kind})")
        for values in batches:
            rows = Columns({"x": values}).arrow({"x": kind})  # noqa: F841  (DuckDB finds it by its name)
            con.execute("INSERT INTO t SELECT x FROM rows")
        return [row[0] for row in con.execute("SELECT x::VARCHAR FROM t").fetchall()]


NESTED: list[tuple[str, list[Any], list[Any]]] = [
    ("MAP(VARCHAR, DOUBLE)", [{"a": 1}, None, {}, {"b": None}], ["{a=1.0}", None, "{}", "{b=NULL}"]),
    (
        "MAP(INTEGER, STRUCT(aB VARCHAR, c MAP(VARCHAR, HUGEINT)[]))",
        [{1: {"aB": "x", "c": [{"k": 2**70}, {}]}}, {2: None, 3: {"AB": 7}}],
        ["{1={'aB': x, 'c': [{k=1180591620717411303424}, {}]}}", "{2=NULL, 3={'aB': 7, 'c': NULL}}"],
    ),
    ("STRUCT(a INTEGER, b DECIMAL(9, 2))[]", [[{"a": 1}], [{"b": 2.5}, None]], ["[{'a': 1, 'b': NULL}]", "[{'a': NULL, 'b': 2.50}, NULL]"]),
    ("VARCHAR[]", [["a"], [1, None], [], None, [True]], ["[a]", "[1, NULL]", "[]", None, "[true]"]),
    ("BIGINT[][2]", [[[1, 2], None], [np.arange(2), [2.0]]], ["[[1, 2], NULL]", "[[0, 1], [2]]"]),
    ("FLOAT[]", [np.arange(2, dtype=np.float32), [1, None], np.array([2.5]), np.ones((1,), np.int8), []], ["[0.0, 1.0]", "[1.0, NULL]", "[2.5]", "[1.0]", "[]"]),
    ("MAP(VARCHAR, JSON)", [{"a": {"x": 1}}, {"a": [1]}], ["{a='{\"x\":1}'}", "{a='[1]'}"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "held"), NESTED, ids=[kind for kind, _, _ in NESTED])
def test_a_nested_value_is_the_same_whatever_its_company_in_the_batch(
    kind: str, values: list[Any], held: list[Any]
) -> None:
    assert stored(kind, [values]) == held
    assert stored(kind, [[value] for value in values]) == held


def test_a_value_of_another_shape_is_refused() -> None:
    for kind, value in [("MAP(VARCHAR, DOUBLE)", "ab"), ("STRUCT(a INTEGER)", [1]), ("MAP(VARCHAR, INTEGER)[]", {})]:
        with pytest.raises(TypeError, match="does not fit into"):
            stored(kind, [[value]])


def test_types_are_split_at_their_own_commas_and_keep_the_case_of_names() -> None:
    text = """pair STRUCT(myField integer, "odd, Name" decimal(9, 2)), kind enum('low', 'hi, (gh'), "Last" timestamp  with
        time zone, n map(varchar, struct(aB double[])[]), d STRUCT("default" INTEGER)"""

    assert _columns("mine", "t", text) == {
        "pair": 'STRUCT(myField INTEGER, "odd, Name" DECIMAL(9, 2))',
        "kind": "ENUM('low', 'hi, (gh')",
        "last": "TIMESTAMP WITH TIME ZONE",
        "n": "MAP(VARCHAR, STRUCT(aB DOUBLE[])[])",
        "d": 'STRUCT("default" INTEGER)',
    }
    with pytest.raises(DeclarationError, match="has a constraint"):
        _columns("mine", "t", "a INTEGER DEFAULT (1)")
    assert stored("enum('low', 'hi, (gh')", [["low"], ["hi, (gh", None]]) == ["low", "hi, (gh", None]


def test_integers_are_whole_however_wide() -> None:
    for kind in ("BIGINT[]", "UTINYINT[1]", "STRUCT(a INTEGER[])"):
        value: Any = [1.5] if kind.endswith("]") else {"a": [1.5]}
        for one in (value, np.array([1.5])) if kind.endswith("]") else (value,):
            with pytest.raises(ValueError, match=r"1\.5 is no integer"):
                stored(kind, [[one]])
    for kind in ("HUGEINT", "UHUGEINT", "BIGNUM"):
        assert stored(kind, [[2**100, None, 3.0], [np.int64(1)]]) == [str(2**100), None, "3", "1"]
    assert stored("BIGINT", [[3.0, np.float64(4), True, None]]) == ["3", "4", "1", None]
    for kind in ("BIGINT", "TINYINT", "HUGEINT"):
        for value in (3.7, Decimal("3.7"), np.float32(0.5), float("nan")):
            with pytest.raises(ValueError, match="integer"):
                stored(kind, [[1, value]])
    assert stored("BIGINT", [np.array([3.0, 4.0])]) == ["3", "4"]
    with pytest.raises(ValueError, match=r"3\.7 is no integer"):
        stored("BIGINT", [np.array([3.7, 1.0])])


def test_times_go_into_a_column_of_nanoseconds() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)
    values = [
        moment,
        moment.replace(tzinfo=zone),
        np.datetime64("2026-01-02T03:04:05.678901234"),
        1,
        None,
        pd.NaT,
        np.datetime64("NaT"),
    ]

    assert stored("TIMESTAMP_NS", [values]) == [
        "2026-01-02 03:04:05.678901",
        "2026-01-02 01:04:05.678901",
        "2026-01-02 03:04:05.678901234",
        "1970-01-01 00:00:00.000000001",
        None,
        None,
        None,
    ]
