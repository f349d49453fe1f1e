"""Views are made in the order in which they stand on one another, and only those anew that have to be."""

import itertools
from collections.abc import Iterator

import duckdb
import pytest

from morphogen.consumers.projections.errors import DeclarationError
from morphogen.consumers.projections.store.layout import META
from morphogen.consumers.projections.store.views import Excused, Views, replace_views, stored_views

BASE = 'SELECT "seq", "amount", "second" FROM p_base_1.base WHERE CASE WHEN true THEN true ELSE seq <= 1 END'


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute(META)
        made.execute("CREATE SCHEMA p_base_1; CREATE TABLE p_base_1.base(seq BIGINT, amount BIGINT, second BIGINT)")
        made.execute("INSERT INTO p_base_1.base VALUES (1, 10, 100)")
        yield made


def oids(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return dict(con.execute("SELECT view_name, view_oid FROM duckdb_views() WHERE NOT internal").fetchall())


def wanted(first: str = "SELECT seq, amount FROM base", **more: str) -> Views:
    views = {
        "base": BASE, "first": first, "second": "SELECT * FROM first", "third": 'SELECT * FROM "second"',
        "alone": "SELECT 1 AS one", **more,
    }  # fmt: skip
    return {name: ("mine", sql) for name, sql in views.items()}


def test_views_are_made_in_whatever_order_they_are_named(con: duckdb.DuckDBPyConnection) -> None:
    for order in itertools.permutations(wanted().items()):
        replace_views(con, {}, ())
        assert oids(con) == {}
        replace_views(con, dict(order), ())
        assert con.execute("SELECT * FROM third").fetchall() == [(1, 10)]
        assert stored_views(con) == wanted()


def test_a_change_makes_anew_what_stands_on_it_and_nothing_else(con: duckdb.DuckDBPyConnection) -> None:
    replace_views(con, wanted(), ())
    before = oids(con)

    replace_views(con, wanted("SELECT seq::VARCHAR AS name, amount FROM base"), ())

    after = oids(con)
    assert {name for name in before if before[name] == after[name]} == {"base", "alone"}
    assert con.execute("SELECT * FROM third").fetchall() == [("1", 10)]
    replace_views(con, {name: view for name, view in wanted().items() if name != "alone"}, ())
    assert "alone" not in oids(con)
    assert con.execute("SELECT * FROM third").fetchall() == [(1, 10)]


def test_views_whose_words_go_in_a_circle_are_made_all_the_same(con: duckdb.DuckDBPyConnection) -> None:
    views = wanted(fourth="SELECT 1 AS fifth", fifth="SELECT 2 AS two FROM fourth")

    replace_views(con, views, ())

    assert con.execute("SELECT * FROM fifth").fetchall() == [(2,)]


def test_a_name_of_any_form_is_found(con: duckdb.DuckDBPyConnection) -> None:
    views = {"a": ("mine", 'SELECT * FROM "Loss Now"'), "Loss Now": ("mine", "SELECT * FROM BASE"), **wanted()}

    replace_views(con, views, ())
    assert con.execute("SELECT * FROM a").fetchall() == [(1, 10, 100)]
    replace_views(con, {**views, "Loss Now": ("mine", "SELECT 'x' AS other")}, ())

    assert con.execute("SELECT * FROM a").fetchall() == [("x",)]


def test_a_view_that_cannot_be_made_is_named_with_its_projection(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(DeclarationError, match=r"projection 'mine', view 'bad': .*nowhere"):
        replace_views(con, wanted(bad="SELECT * FROM nowhere"), ())


def test_a_view_that_may_be_left_out_is_until_it_can_be_made(
    con: duckdb.DuckDBPyConnection, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = {"bad": ("theirs", "SELECT * FROM nowhere"), "worse": ("theirs", "SELECT * FROM bad")}
    replace_views(con, wanted() | theirs, (), Excused(frozenset({"theirs"})))

    assert oids(con).keys() == wanted().keys()
    assert [record.getMessage().split(";")[0].split(": ")[0] for record in caplog.records] == [
        "view 'bad' is left out",
        "view 'worse' is left out",
    ]
    with pytest.raises(DeclarationError, match="view 'odd'"):
        replace_views(con, wanted(odd="SELECT * FROM nowhere") | theirs, (), Excused(frozenset({"theirs"})))

    con.execute("CREATE TABLE nowhere AS SELECT 3 AS three")
    replace_views(con, wanted() | theirs, ())
    assert con.execute("SELECT * FROM worse").fetchall() == [(3,)]


def test_a_view_that_waits_for_a_projection_is_made_when_that_one_is_there(con: duckdb.DuckDBPyConnection) -> None:
    views = wanted(late="SELECT * FROM later")
    replace_views(con, views, ["building"])
    assert "late" not in oids(con)

    con.execute("CREATE TABLE later AS SELECT 3 AS three")
    replace_views(con, views, ())

    assert con.execute("SELECT * FROM late").fetchall() == [(3,)]
    assert stored_views(con) == views


def test_while_a_projection_is_built_only_what_changed_is_made_anew(con: duckdb.DuckDBPyConnection) -> None:
    replace_views(con, wanted(), ())
    before = oids(con)
    changed = wanted("SELECT seq::VARCHAR AS name, amount FROM base", late="SELECT * FROM later")

    replace_views(con, changed, ["building"])

    after = oids(con)
    assert {name for name in before if before[name] == after[name]} == {"base", "alone"}
    assert con.execute("SELECT * FROM third").fetchall() == [("1", 10)]
    assert "late" not in after


def test_while_a_projection_is_built_a_view_that_cannot_be_made_keeps_its_older_form(
    con: duckdb.DuckDBPyConnection,
) -> None:
    replace_views(con, wanted(), ())
    changed = wanted("SELECT seq, later.three AS amount FROM base, later")

    replace_views(con, changed, ["building"])
    assert con.execute("SELECT * FROM third").fetchall() == [(1, 10)]
    assert stored_views(con) == wanted()

    con.execute("CREATE TABLE later AS SELECT 3 AS three")
    replace_views(con, changed, ["building"])
    assert con.execute("SELECT * FROM third").fetchall() == [(1, 3)]
    assert stored_views(con) == changed
