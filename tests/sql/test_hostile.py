"""Whatever a foreign query tries, the store stays as it is and the projector goes on."""

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.errors import SqlError, SqlRefused, SqlTooLarge, SqlTooLong
from morphogen.consumers.projections.sql.query import SqlClient, query

from .conftest import Log

REFUSED = [
    # Writes, open and hidden
    "INSERT INTO p_metrics_1.metrics SELECT * FROM p_metrics_1.metrics",
    "WITH x AS (INSERT INTO p_metrics_1.metrics SELECT * FROM p_metrics_1.metrics RETURNING seq) SELECT * FROM x",
    "WITH x AS (DELETE FROM p_metrics_1.metrics RETURNING seq) SELECT * FROM x",
    "WITH x AS (UPDATE p_metrics_1.metrics SET value = 0 RETURNING seq) SELECT * FROM x",
    "WITH a AS (WITH b AS (DELETE FROM morphogen.positions RETURNING 1) FROM b) FROM a",
    "SELECT * FROM (WITH x AS (DELETE FROM morphogen.positions RETURNING 1) FROM x)",
    "EXPLAIN ANALYZE INSERT INTO p_metrics_1.metrics SELECT * FROM p_metrics_1.metrics",
    "EXPLAIN ANALYZE WITH x AS (DELETE FROM morphogen.positions RETURNING 1) FROM x",
    "/* SELECT */ DELETE FROM morphogen.positions",
    "UPDATE morphogen.positions SET seq = 0",
    "MERGE INTO p_metrics_1.metrics USING (SELECT 1 AS k) ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE p_metrics_1.metrics",
    # The catalog
    "DROP VIEW metrics",
    "DROP SCHEMA p_metrics_1 CASCADE",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE OR REPLACE VIEW metrics AS SELECT 1",
    "CREATE TEMP VIEW metrics AS SELECT 1",
    "CREATE MACRO main.count(x) AS 0",
    "CREATE SEQUENCE s",
    "CREATE SECRET s (TYPE s3)",
    "ALTER TABLE p_metrics_1.metrics ADD COLUMN x INT",
    "COMMENT ON VIEW metrics IS 'x'",
    # Transactions and several statements
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "COMMIT; DROP VIEW metrics",
    "SELECT 1; SELECT 2",
    "SELECT 1; COMMIT; DROP VIEW metrics; BEGIN",
    "SELECT 1\0; DROP VIEW metrics",
    # Settings and procedures
    "SET memory_limit = '100GB'",
    "SET max_execution_time = 0",
    "SET operator_memory_limit = '1TB'",
    "SET VARIABLE as_of = 1",
    "RESET max_execution_time",
    "USE memory",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "SELECT * FROM enable_profiling()",
    "CALL checkpoint()",
    "CALL enable_logging()",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "SELECT * FROM checkpoint()",
    "FROM force_checkpoint()",
    "VACUUM",
    "ANALYZE",
    "PREPARE q AS SELECT 1",
    "EXECUTE q",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    # Files and the network
    "COPY metrics TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet'",
    "COPY p_metrics_1.metrics FROM '{folder}/secret.csv'",
    "COPY FROM DATABASE memory TO memory",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/other.duckdb'",
    "ATTACH ':memory:' AS other",
    "DETACH memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD json",
    "SELECT * FROM read_csv('{folder}/secret.csv')",
    "SELECT * FROM READ_CSV_AUTO ('{folder}/secret.csv')",
    "SELECT * FROM \"read_csv\" /* x */ ('{folder}/secret.csv')",
    "SELECT * FROM system.main.read_csv('{folder}/secret.csv')",
    "SELECT * FROM '{folder}/secret.csv'",
    'SELECT * FROM "{folder}/secret.csv"',
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM metrics, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('https://example.com/x.parquet')",
    "SELECT * FROM read_json('{folder}/secret.csv')",
    "SELECT * FROM sniff_csv('{folder}/secret.csv')",
    "SELECT * FROM parquet_metadata('{folder}/secret.csv')",
    "SELECT * FROM read_duckdb('{store}')",
    "SELECT * FROM '{store}'",
    "SUMMARIZE '{folder}/secret.csv'",
    "DESCRIBE SELECT * FROM read_text('/etc/passwd')",
    "PIVOT (SELECT * FROM read_text('/etc/passwd')) ON size",
    "EXPLAIN SELECT * FROM read_csv('{folder}/secret.csv')",
    "EXPLAIN EXPLAIN SELECT 1",
    "SELECT * FROM query_table('{folder}/secret.csv')",
    "SELECT * FROM query_table(['{folder}/secret.csv'])",
    "CREATE TEMP TABLE mine AS PIVOT metrics ON name USING avg(value)",
    "COPY (PIVOT metrics ON name USING avg(value)) TO '{folder}/out.csv'",
    # What this process holds
    "SELECT getenv('HOME')",
    "SELECT * FROM incoming",
    "SELECT * FROM store",
    "SELECT * FROM arrow_scan(0, 0, 0)",
    "SELECT * FROM python_arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM seq_scan('metrics')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_logs()",
    # Text that is run
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query('DROP VIEW metrics')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT variant_bytes_to_variant('\\xFF'::BLOB)",
    "SELECT sleep_ms(100000)",
    # No query at all
    "",
    " -- nothing\n",
    "SELECT",
    "this is no SQL",
    "\ufeff",
]
BOUNDED = [
    "SELECT count(*) FROM range(1000000000000)",
    "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT list(i) FROM range(10000000000) t(i)",
    "SELECT repeat('xyzzy' || i, 100000000) FROM range(100) t(i)",
    "SELECT repeat('x', 1000000) FROM range(1000000)",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(1000000)",
    "SELECT i, count(*) FROM range(10000000000) t(i) GROUP BY i ORDER BY 2",
    "SELECT list_resize([1], 4000000000, 2)",
    "SELECT format('{{:>4000000000}}', 1), lpad('x', 2000000000, 'y') || lpad('x', 2000000000, 'y')",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SELECT " + "+".join(["1"] * 50000),
    "SELECT '" + "x" * 2_000_000 + "'",
]
HARMLESS = [
    "SELECT 'DROP VIEW metrics; read_csv(x)' AS words, 1 AS query, 2 AS \"insert\"",
    "SELECT 1; -- a comment after the only statement",
    "(SELECT 1)",
    "FROM metrics",
    "VALUES (1), (2)",
    "TABLE metrics",
    "DESCRIBE metrics",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SUMMARIZE metrics",
    "EXPLAIN SELECT * FROM metrics",
    "EXPLAIN ANALYZE SELECT count(*) FROM metrics",
    "EXPLAIN (FORMAT JSON) SELECT count(*) FROM metrics",
    "PIVOT metrics ON name USING avg(value) GROUP BY step",
    "SELECT * FROM query_table('metrics')",
    "SELECT * FROM unnest([1, 2]), range(3), generate_series(1, 2)",
    "SELECT database_name, table_name FROM duckdb_tables()",
    "SELECT regexp_matches(repeat('a', 10000), '(a+)+$b')",
]


def test_nothing_that_a_query_tries_changes_the_store_or_ends_the_projector(
    log: Any, projector: "subprocess.Popen[str]", settings: Settings, tmp_path: Path
) -> None:
    log.metrics(3, 50)
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    query("SELECT 1", wait=True)
    (store,) = settings.projections_dir.glob("*.duckdb")
    before = _state()
    wrong: list[str] = []

    for sql in REFUSED:
        text = sql.replace("{folder}", str(tmp_path)).replace("{store}", str(store))
        try:
            answer = query(text, timeout=10)
        except SqlError as error:
            if "\n" in str(error) or "Traceback" in str(error) or len(str(error)) > 700:
                wrong.append(f"{sql!r}: not one clear line: {error}")
        else:
            wrong.append(f"{sql!r} was answered: {answer!r}")

    assert not wrong, "\n".join(wrong)
    assert _state() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]
    assert projector.poll() is None
    log.metrics(1, 50)  # and it still writes
    assert query("SELECT count(*) FROM metrics", wait=True).scalar() == 200


def test_a_write_in_a_with_clause_is_named_as_such(served: Any) -> None:
    with pytest.raises(SqlRefused, match="only reads, and this one has DELETE inside"):
        query("WITH x AS (DELETE FROM morphogen.positions RETURNING 1) SELECT * FROM x")
    with pytest.raises(SqlRefused, match="one statement at a time, this text holds 2"):
        query("COMMIT; DROP VIEW metrics")


def test_greedy_queries_are_stopped_while_the_projector_goes_on(log: Any, projector: "subprocess.Popen[str]") -> None:
    log.metrics(1, 10)
    wrong: list[str] = []

    for number, sql in enumerate(BOUNDED, 2):
        try:
            query(sql.replace("{{", "{").replace("}}", "}"), timeout=0.6, max_rows=10)
        except (SqlTooLong, SqlTooLarge, SqlError) as error:
            if "\n" in str(error) or len(str(error)) > 700:
                wrong.append(f"{sql[:80]!r}: {error}")
        log.metrics(1, 10)
        assert query("SELECT count(*) FROM metrics", wait=True, timeout=60).scalar() == number * 10

    assert not wrong, "\n".join(wrong)
    assert projector.poll() is None
    assert _rss(projector.pid) < 3 << 30


@pytest.fixture(scope="module")
def ten_metrics(lasting: Settings) -> None:
    """Rows to read."""
    Log(lasting).metrics()


@pytest.mark.parametrize("sql", HARMLESS)
def test_reading_in_any_form_is_answered(sql: str, at_lasting: Settings, ten_metrics: None) -> None:
    assert len(query(sql)) > 0


def test_what_a_query_leaves_on_its_cursor_does_not_outlive_it(served: Any) -> None:
    served.log().metrics(2, run="left")
    query("SELECT 1", wait=True)

    query("SELECT count(*) FROM metrics", as_of=1)
    query("PIVOT metrics ON name USING avg(value) GROUP BY step")  # makes a temporary type

    assert query("SELECT count(*) FROM metrics WHERE run = 'left'").scalar() == 20
    assert query("SELECT count(*) FROM duckdb_types() WHERE NOT internal").scalar() == 0
    assert query("SELECT count(*) FROM duckdb_tables() WHERE temporary").scalar() == 0


def test_past_the_queue_the_answer_is_busy(served: Any) -> None:
    client = SqlClient(served.settings)
    served.log().metrics(run="queue")
    outcomes: list[str] = []

    def ask() -> None:
        try:
            client.query("SELECT count(*) FROM range(1000000000000)", timeout=2.5)
        except SqlError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(90)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()

    assert outcomes.count("SqlBusy") >= 10
    assert outcomes.count("SqlTooLong") >= 4
    assert len(outcomes) == 90
    assert query("SELECT count(*) FROM metrics WHERE run = 'queue'", wait=True).scalar() == 10


def test_a_local_answer_is_as_strict_as_the_projectors(log: Any, settings: Settings, tmp_path: Path) -> None:
    log.metrics()
    query("SELECT 1")
    (store,) = settings.projections_dir.glob("*.duckdb")
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = _state()
    tab = {"a": [1]}  # a local name that DuckDB's Python would find

    # Each opens the store anew, and the refusals are those of the projector: some of every kind.
    for sql in [*REFUSED[:10:3], *REFUSED[-25::3], "FROM tab", "FROM os", "FROM read_csv('{folder}/secret.csv')"]:
        with pytest.raises(SqlError):
            query(sql.replace("{folder}", str(tmp_path)).replace("{store}", str(store)))

    assert _state() == before
    assert tab
    assert os.listdir(tmp_path) == ["secret.csv"]


def _state() -> list[tuple[Any, ...]]:
    """Hash all rows, and list everything that the catalog holds."""
    parts = [
        "SELECT count(*), md5(string_agg(e::VARCHAR, '|' ORDER BY seq, idx)) FROM events e",
        "SELECT count(*), md5(string_agg(m::VARCHAR, '|' ORDER BY seq, idx, name)) FROM metrics m",
        "SELECT projection, generation, seq FROM morphogen.positions",
        "SELECT schema_name, table_name, sql FROM duckdb_tables()",
        "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal",
        "SELECT function_name FROM duckdb_functions() WHERE NOT internal",
        "SELECT database_name FROM duckdb_databases()",
        "SELECT schema_name FROM duckdb_schemas()",
    ]
    every = [f"SELECT {number} AS part, row::VARCHAR AS row FROM ({sql}) row" for number, sql in enumerate(parts)]
    found = query(" UNION ALL ".join(every) + " ORDER BY ALL").rows()
    assert {part for part, _ in found} >= {0, 1, 2, 3, 4, 6, 7}
    return found


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
