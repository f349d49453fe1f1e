"""Values come out of the store exactly, in every form that can hold them."""

import csv
import datetime as dt
import io
import json
import math
import os
import pickle
import resource
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.cells import Moment
from morphogen.consumers.projections.sql.errors import SqlError
from morphogen.consumers.projections.sql.formats import Result
from morphogen.consumers.projections.sql.leaves import changed, holds
from morphogen.consumers.projections.sql.query import query

MOMENT = "TIMESTAMP_NS '2026-01-02 03:04:05.123456789'"
CASES: list[tuple[str, Any]] = [
    ("'nan'::DOUBLE", math.nan),
    ("'inf'::DOUBLE", math.inf),
    ("'-inf'::FLOAT", -math.inf),
    ("5e-324::DOUBLE", 5e-324),
    ("'-9223372036854775808'::BIGINT", -(2**63)),
    ("18446744073709551615::UBIGINT", 2**64 - 1),
    ("'170141183460469231731687303715884105727'::HUGEINT", 2**127 - 1),
    ("'-170141183460469231731687303715884105728'::HUGEINT", -(2**127)),
    ("'340282366920938463463374607431768211455'::UHUGEINT", 2**128 - 1),
    ("sum(9223372036854775807)", 2**63 - 1),
    ("'123456789012345678901234567890.12345678'::DECIMAL(38, 8)", Decimal("123456789012345678901234567890.12345678")),
    ("1.50::DECIMAL(10, 2)", Decimal("1.50")),
    ("[1, NULL, 3]", [1, None, 3]),
    ("[[1], [], NULL]", [[1], [], None]),
    ("[1, 2]::INT[2]", [1, 2]),
    ("{'a': 1, 'b': {'c': 'x'}}", {"a": 1, "b": {"c": "x"}}),
    ("MAP {'k': 1.5, 'l': 'nan'::DOUBLE}", {"k": 1.5, "l": math.nan}),
    ("MAP {[1]: 2}", [([1], 2)]),
    ("{'a': 1, 'n': 'nan'::DOUBLE, 'i': 9223372036854775807}::VARIANT", '{"a":1,"i":9223372036854775807,"n":NaN}'),
    ("[{'a': 1}::VARIANT]", ['{"a":1}']),
    ("{'x': {'a': 1}::VARIANT}", {"x": '{"a":1}'}),
    ("NULL::VARIANT", None),
    ("union_value(k := 1)", '{"k":1}'),
    ("'0101'::BIT", "0101"),
    ("'x'::ENUM('x', 'y')", "x"),
    ("TIMETZ '01:02:03.5+02'", "01:02:03.5+02"),
    ("TIME '01:02:03.5'", dt.time(1, 2, 3, 500000)),
    ("TIME_NS '01:02:03.123456789'", "01:02:03.123456789"),
    ("DATE '2026-01-02'", dt.date(2026, 1, 2)),
    ("TIMESTAMP '2026-01-02 03:04:05.123456'", dt.datetime(2026, 1, 2, 3, 4, 5, 123456)),
    ("TIMESTAMPTZ '2026-01-02 03:04:05.123456+00'", dt.datetime(2026, 1, 2, 3, 4, 5, 123456, dt.UTC)),
    ("'\\x00\\xFF'::BLOB", b"\x00\xff"),
    ("''", ""),
    ("'né\"\n,é'", 'né"\n,é'),
    ("NULL", None),
    ("'5b3e1a2c-0000-4000-8000-000000000001'::UUID", "5b3e1a2c-0000-4000-8000-000000000001"),
]


def same(found: Any, expected: Any) -> bool:
    """Compare with NaN equal to itself and types equal too."""
    if isinstance(expected, float):
        return isinstance(found, float) and (found == expected or (math.isnan(found) and math.isnan(expected)))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    return bool(found == expected) and isinstance(found, type(expected))


def test_every_type_arrives_exactly(anywhere: None) -> None:
    result = query("SELECT " + ", ".join(f"{sql} AS c{number}" for number, (sql, _) in enumerate(CASES)))

    (row,) = result.rows()

    wrong = [(sql, found) for (sql, expected), found in zip(CASES, row, strict=True) if not same(found, expected)]
    assert wrong == []


def test_nanoseconds_arrive_in_every_form(at_lasting: Settings, tmp_path: Path) -> None:
    result = query(f"SELECT {MOMENT} AS t, [{MOMENT}] AS l, {{'t': {MOMENT}}} AS s, TIMESTAMP_NS '1969-01-01' AS old")
    moment, nested, struct, old = result.rows()[0]

    assert (moment, moment.nanosecond) == (dt.datetime(2026, 1, 2, 3, 4, 5, 123456), 789)
    assert str(moment) == "2026-01-02 03:04:05.123456789"
    assert (nested[0].nanosecond, struct["t"].nanosecond) == (789, 789)
    assert old == dt.datetime(1969, 1, 1)
    assert pickle.loads(pickle.dumps(moment)).nanosecond == 789
    assert result.pandas()["t"][0] == pd.Timestamp("2026-01-02 03:04:05.123456789")
    assert result.polars()["t"].to_physical()[0] == 1767323045123456789
    result.to_csv(tmp_path / "a.csv")
    assert "2026-01-02 03:04:05.123456789" in (tmp_path / "a.csv").read_text()
    result.to_json(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())[0]["t"] == "2026-01-02T03:04:05.123456789"
    result.to_parquet(tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet")["t"].cast(pa.int64())[0].as_py() == 1767323045123456789


def test_a_moment_knows_what_a_datetime_cannot_reach() -> None:
    assert Moment.of(2**63 - 1).year == 2262  # type: ignore[union-attr]
    assert Moment.of(-1).isoformat() == "1969-12-31T23:59:59.999999999"  # type: ignore[union-attr]


def test_each_file_form_reads_back(at_lasting: Settings, tmp_path: Path) -> None:
    result = query("SELECT i, i / 4 AS v, 'é' || i AS s, [i] AS l FROM range(1000) t(i)")

    result.to_csv(tmp_path / "r.csv")
    result.to_json(tmp_path / "r.json")
    result.to_jsonl(tmp_path / "r.jsonl")
    result.to_parquet(tmp_path / "r.parquet")
    result.to_arrow_file(tmp_path / "r.arrow")

    rows = list(csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8")))
    assert rows[3] == {"i": "3", "v": "0.75", "s": "é3", "l": "[3]"}
    assert json.loads((tmp_path / "r.json").read_text())[3] == {"i": 3, "v": 0.75, "s": "é3", "l": [3]}
    assert [json.loads(line)["i"] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == list(range(1000))
    assert duckdb.sql(f"SELECT sum(i) FROM '{tmp_path}/r.parquet'").fetchall() == [(499500,)]
    assert pa.ipc.open_file(tmp_path / "r.arrow").read_all().equals(result.arrow())
    assert pl.read_ipc(tmp_path / "r.arrow").height == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.arrow", "r.csv", "r.json", "r.jsonl", "r.parquet"]


def test_streams_are_written_and_left_open(at_lasting: Settings) -> None:
    result = query("SELECT 1 AS a, 'x' AS b")
    text, table, raw, arrow = io.StringIO(), io.StringIO(), io.BytesIO(), io.BytesIO()

    result.to_jsonl(text)
    result.to_csv(table)
    result.to_csv(raw)
    result.to_json(raw)
    result.to_arrow_file(arrow)

    assert table.getvalue() == '"a","b"\n1,"x"\n'
    assert text.getvalue() == '{"a":1,"b":"x"}\n'
    assert raw.getvalue() == b'"a","b"\n1,"x"\n[\n{"a":1,"b":"x"}\n]\n'
    assert pa.ipc.open_stream(arrow.getvalue()).read_all().num_rows == 1


def test_json_is_valid_even_with_nan_and_documents(at_lasting: Settings) -> None:
    out = io.StringIO()
    query(
        "SELECT 'nan'::DOUBLE AS n, '-inf'::DOUBLE AS i, {'a': 'inf'::DOUBLE}::VARIANT AS d, '{\"k\": [1]}'::JSON AS j, "
        "INTERVAL '1 month 2 days' AS v, 'a'::BLOB AS b"
    ).to_jsonl(out)

    assert json.loads(out.getvalue(), parse_constant=pytest.fail) == {
        "n": "NaN", "i": "-Infinity", "d": {"a": "Infinity"}, "j": {"k": [1]},
        "v": "1 months 2 days 0 s", "b": "YQ==",
    }  # fmt: skip


def test_a_document_nested_too_deeply_for_python_stays_text(at_lasting: Settings) -> None:
    deep = '{"a":' * 900 + "1" + "}" * 900
    out = io.StringIO()
    query(f"SELECT '{deep}'::JSON AS deep, '{{\"a\":1}}'::JSON AS flat").to_jsonl(out)

    assert json.loads(out.getvalue()) == {"deep": deep, "flat": {"a": 1}}


def test_sums_of_integers_are_integers_in_pandas_and_polars(at_lasting: Settings) -> None:
    result = query("SELECT sum(i) AS s, sum(2::HUGEINT ** 100)::HUGEINT AS big FROM range(10) t(i)")

    assert result.pandas()["s"].dtype == "int64"
    assert result.polars()["s"].dtype == pl.Int64
    assert int(result.pandas()["big"][0]) == 10 * 2**100


def test_names_that_come_twice_are_numbered(at_lasting: Settings) -> None:
    result = query("SELECT 1 AS a, 2 AS a, 3 AS a")

    assert result.columns == ["a", "a_1", "a_2"]
    assert list(result) == [{"a": 1, "a_1": 2, "a_2": 3}]


def test_the_repr_is_a_small_table(at_lasting: Settings) -> None:
    result = query("SELECT i AS number, repeat('long ', 20) AS words FROM range(100) t(i)")

    lines = repr(result).splitlines()

    assert lines[0].split() == ["number", "words"]
    assert len(lines) == 13
    assert all(len(line) <= 110 for line in lines)
    assert lines[-1] == "(100 rows)"


def test_an_answer_without_rows_keeps_its_columns(at_lasting: Settings, tmp_path: Path) -> None:
    result = query("SELECT 1 AS a, 'x'::VARIANT AS b WHERE false")

    assert (len(result), result.columns, result.types, result.rows()) == (0, ["a", "b"], ["INTEGER", "VARIANT"], [])
    result.to_csv(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == '"a","b"\n'
    result.to_json(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert "(0 rows)" in repr(result)


def test_rows_need_neither_pandas_nor_polars(at_lasting: Settings) -> None:
    code = (
        "import sys\nsys.modules['pandas'] = None\nsys.modules['polars'] = None\n"
        "from morphogen.consumers.projections.sql.query import query\n"
        f'result = query("SELECT {MOMENT} AS t, [{MOMENT}] AS l")\n'
        "print(result.rows()[0][0]); print(repr(result) != '')\n"
        "try: result.pandas()\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == [
        "2026-01-02 03:04:05.123456789",
        "True",
        "pandas is not installed: run pip install pandas, or use .arrow() or .rows()",
    ], done.stderr


def test_a_result_can_be_made_from_any_arrow_table() -> None:
    result = Result(pa.table({"a": [1, 2]}))

    assert result.rows() == [(1,), (2,)]
    with pytest.raises(ValueError, match="2 rows and 1 columns"):
        result.scalar()


FAR = (
    "SELECT 'infinity'::DATE AS a, '-infinity'::TIMESTAMP AS b, 'infinity'::TIMESTAMPTZ AS c, ['-infinity'::DATE] AS d, "
    "'infinity'::TIMESTAMP_NS AS e, DATE '290000-01-01' AS f, '-infinity'::TIMESTAMP_S AS g, DATE '2026-01-02' AS h"
)


def test_dates_that_no_calendar_of_python_has_are_told_in_every_form(at_lasting: Settings, tmp_path: Path) -> None:
    result = query(FAR)
    told = ["infinity", "-infinity", "infinity", ["-infinity"], "infinity", 105_200_797, "-infinity"]
    text, lines = io.StringIO(), io.StringIO()

    result.to_csv(text)
    result.to_jsonl(lines)

    assert result.rows() == [(*told, dt.date(2026, 1, 2))]
    assert list(json.loads(lines.getvalue()).values()) == [*told, "2026-01-02"]
    assert list(csv.reader(io.StringIO(text.getvalue())))[1] == [
        *(json.dumps(value) if isinstance(value, list) else str(value) for value in told), "2026-01-02",
    ]  # fmt: skip
    assert result.pandas().loc[0, "b"] == "-infinity"
    assert "infinity" in repr(result)


def test_what_a_form_cannot_hold_is_one_line_and_leaves_no_file(at_lasting: Settings, tmp_path: Path) -> None:
    with pytest.raises(SqlError, match="Parquet cannot hold this answer"):
        query("SELECT empty_struct FROM test_all_types()").to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(FileNotFoundError, match=r"/nowhere/rows\.csv"):
        query("SELECT 1").to_csv("/nowhere/rows.csv")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["to_csv", "to_jsonl", "to_parquet", "to_arrow_file"])
def test_a_disk_that_is_full_is_told_with_the_file_and_leaves_none(
    at_lasting: Settings, tmp_path: Path, form: str
) -> None:
    result = query("SELECT hash(range) AS n FROM range(100000)")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            getattr(result, form)(tmp_path / "rows")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert caught.value.filename == str(tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_an_interval_keeps_all_its_digits_in_every_form_at_any_depth(at_lasting: Settings, tmp_path: Path) -> None:
    span, told = "INTERVAL '34:17:36.789012'", "0 months 0 days 123456.789012 s"
    result = query(
        f"SELECT * FROM (VALUES ({span}, [{span}, NULL], {{'a': {span}}}, MAP {{'k': {span}}}, [{span}]::INTERVAL[1]), "
        "(NULL, NULL, NULL, NULL, NULL), (INTERVAL '-0.000001 s', [], {'a': NULL}, MAP {}, [NULL])) t(i, l, s, m, f)"
    )
    rows = [
        {"i": told, "l": [told, None], "s": {"a": told}, "m": {"k": told}, "f": [told]},
        {"i": None, "l": None, "s": None, "m": None, "f": None},
        {"i": "0 months 0 days -0.000001 s", "l": [], "s": {"a": None}, "m": {}, "f": [None]},
    ]
    lines, table = io.StringIO(), io.StringIO()

    result.to_jsonl(lines)
    result.to_csv(table)
    result.to_parquet(tmp_path / "spans.parquet")

    assert [json.loads(line) for line in lines.getvalue().splitlines()] == rows
    assert next(csv.DictReader(io.StringIO(table.getvalue())))["l"] == f'["{told}",null]'
    held = pq.read_table(tmp_path / "spans.parquet").to_pylist(maps_as_pydicts="strict")
    assert held == rows
    assert result.polars()["l"].to_list() == [[told, None], None, []]
    assert told in repr(result)
    assert "Decimal" not in repr(query("SELECT [1.5]"))


def test_sums_are_integers_within_lists_too_and_keys_keep_their_digits(at_lasting: Settings) -> None:
    result = query(
        "SELECT [sum(3)] AS l, {'s': sum(3)} AS s, MAP {1.23456789::DOUBLE: sum(3)} AS m, 3::DECIMAL(38) AS d"
    )
    out = io.StringIO()

    result.to_jsonl(out)

    assert result.rows() == [([3], {"s": 3}, {1.23456789: 3}, Decimal(3))]
    assert json.loads(out.getvalue()) == {"l": [3], "s": {"s": 3}, "m": {"1.23456789": 3}, "d": "3"}


FORMS = ["to_csv", "to_json", "to_jsonl", "to_parquet", "to_arrow_file"]


@pytest.mark.parametrize("form", FORMS)
def test_a_link_stays_one_and_a_file_keeps_its_permissions(tmp_path: Path, form: str) -> None:
    (tmp_path / "file").touch(mode=0o640)
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "ahead").symlink_to("later")

    for name in ("link", "ahead"):
        getattr(Result(pa.table({"a": [1]})), form)(tmp_path / name)

    assert (tmp_path / "link").readlink() == Path("file")
    assert (tmp_path / "file").stat().st_size > 0
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "later").read_bytes() == (tmp_path / "file").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ahead", "file", "later", "link"]


@pytest.mark.parametrize("form", FORMS)
def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path, form: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()

    getattr(Result(pa.table({"a": [1]})), form)(tmp_path / "pipe")

    reader.join()
    assert len(read[0]) > 0
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


def test_polars_gets_dates_that_it_cannot_hold_as_text_at_any_depth(at_lasting: Settings) -> None:
    far = query(FAR).polars().rows()[0]
    within = query(
        "SELECT {'a': [TIMESTAMP '-infinity', NULL]} AS a, MAP {'k': DATE '20000-01-01'} AS b, "
        "['infinity'::TIMESTAMP_NS, NULL]::TIMESTAMP_NS[2] AS c, [DATE '2026-01-02'] AS d FROM range(2)"
    ).polars()

    assert far == (
        "infinity",
        "-infinity",
        "infinity",
        ["-infinity"],
        "infinity",
        "105200797",
        "-infinity",
        dt.date(2026, 1, 2),
    )
    assert within.to_dicts() == 2 * [
        {"a": {"a": ["-infinity", None]}, "b": {"k": "6585322"}, "c": ["infinity", None], "d": [dt.date(2026, 1, 2)]}
    ]  # fmt: skip
    assert query("SELECT [DATE 'infinity'] AS a WHERE false").polars().height == 0
    last = query("SELECT TIMESTAMP '9999-12-31 23:59:59.999999' AS a, DATE '9999-12-31' AS b").polars().rows()
    assert last == [(dt.datetime.max, dt.date.max)]


_PLAIN = st.sampled_from([(pa.int32(), st.integers(-9, 9)), (pa.string(), st.text(max_size=3))])


def _nested(of: Any) -> Any:
    def made(inner: Any) -> Any:
        kind, values = inner
        lists = st.none() | st.lists(st.none() | values, max_size=3)
        pairs = st.none() | st.lists(st.none() | values, min_size=2, max_size=2)
        return st.sampled_from([
            (pa.list_(kind), lists), (pa.large_list(kind), lists), (pa.list_(kind, 2), pairs),
            (pa.struct([("a", kind), ("b", pa.bool_())]),
             st.none() | st.fixed_dictionaries({"a": st.none() | values, "b": st.booleans()})),
            (pa.map_(pa.string(), kind),
             st.none() | st.lists(st.tuples(st.text(max_size=2), st.none() | values), max_size=3)),
        ])  # fmt: skip

    return of.flatmap(made)


@given(st.data())
def test_values_within_others_change_in_their_places(data: st.DataObject) -> None:
    kind, values = data.draw(st.recursive(_PLAIN, _nested, max_leaves=4))
    rows = data.draw(st.lists(st.none() | values, max_size=6))
    array = pa.array(rows, kind).slice(data.draw(st.integers(0, len(rows))))

    kept = changed(array, pa.types.is_integer, lambda part: pa.array(part.to_pylist(), pa.int64()))

    assert kept.to_pylist() == array.to_pylist()
    assert not holds(kept.type, pa.types.is_int32)
