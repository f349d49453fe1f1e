"""Facts over a trace: the stream and SQL, beside a loop in plain Python and DuckDB asked by hand.

    python benchmarks/facts.py [--items 1000000] [--rows 10000000] [--rounds 5]

Twenty facts over one case: comparisons, logic, and windows over the last 20 and 100 items, by step and by time. The
stream is given columns in batches of 64 Ki items, on one core; `bytes of the log` begins at the messages, so that
decoding counts, many records at once as projectors do and record by record. The loop keeps deques and running sums by
hand, for three of the facts, and is scaled to twenty. SQL counts where each fact holds, by group, over ten million items:
facts on the item are views over the table of their case, those with windows answer from what was stored as the items
were folded. Beside them stands the question written by hand, for windows over a tenth of the items: it sorts them all.
"""

# ruff: noqa: E402  numpy must find these settings when it is imported
import argparse
import json
import os
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before numpy is imported

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from morphogen.consumers.projections.facts import own_columns, own_events
from morphogen.consumers.projections.facts.case_tables import relation_of
from morphogen.consumers.projections.facts.items import kinds_of
from morphogen.consumers.projections.facts.judged import Judged, windowed
from morphogen.consumers.projections.facts.sources import source_of
from morphogen.consumers.projections.facts.sql import fact_sql
from morphogen.consumers.projections.fold import opening, sealed
from morphogen.consumers.projections.fold.batch import Batch
from morphogen.schemas import Record, encode_frame
from morphogen.schemas.knowledge.cases import make_item
from morphogen.schemas.knowledge.program import Program, load_text
from morphogen.schemas.knowledge.stream import Engine, Integer, Items, Number, State, Text, Values, condition

BATCH = 1 << 16
NAMES = ["fwd", "bwd", "step", "data"]
RUNS = [f"run{number}" for number in range(10)]
FACTS = """
    fact f01(t: Item.Step) { return t.loss > 1.5 }
    fact f02(t: Item.Step) { return t.loss > 1.2 and t.lr < 0.1 }
    fact f03(t: Item.Step) { return not is_known(t.norm) or t.norm > 100 }
    fact f04(t: Item.Step) { return t.name == "fwd" and t.ms > 12 }
    fact f05(t: Item.Step) { return t.name in ["fwd", "bwd"] }
    fact f06(t: Item.Step) { return t.ms / t.tokens > 0.01 }
    fact f07(t: Item.Step) { return abs(t.loss - 1) * 2 > t.norm }
    fact f08(t: Item.Step) { return log2(t.tokens) > 10.5 }
    fact f09(t: Item.Step) { return avg(t.loss) over last 100 > 1.2 }
    fact f10(t: Item.Step) { return t.loss > 2 * avg(t.loss) over last 100 }
    fact f11(t: Item.Step) { return max(t.norm) over last 20 > 50 }
    fact f12(t: Item.Step) { return min(t.loss) over last 20 > 1 }
    fact f13(t: Item.Step) { return std(t.loss) over last 100 < 0.1 }
    fact f14(t: Item.Step) { return slope(t.loss) over last 100 > 0 }
    fact f15(t: Item.Step) { return avg(t.ms) over last 20 per name > 15 }
    fact f16(t: Item.Step) { return t.ms > 1.5 * avg(t.ms) over last 20 per name }
    fact f17(t: Item.Step) { return delta(t.loss) over last 20 > 0.5 }
    fact f18(t: Item.Step) { return count(t.norm) over last 20 < 10 }
    fact f19(t: Item.Step) { return t.loss < min(t.loss) over 1 min }
    fact f20(t: Item.Step) { return f01(t) and f09(t) and not f11(t) }
"""
MODULE = f"""
system Bench {{
  trace_schema {{ variant Item {{
    case Step {{ name: string, loss: float, lr: float, norm: float?, ms: float, tokens: int }}
  }} }}
  knowledge {{ {FACTS} }}
}}
"""

BY_HAND = {
    "Bench.f02": "SELECT name, count(*) FROM trace_bench_step WHERE loss > 1.2 AND lr < 0.1 GROUP BY name",
    "Bench.f05": "SELECT name, count(*) FROM trace_bench_step WHERE name IN ('fwd', 'bwd') GROUP BY name",
    "Bench.f06": "SELECT name, count(*) FROM trace_bench_step WHERE ms / nullif(tokens, 0) > 0.01 GROUP BY name",
    "Bench.f09": "SELECT name, count(*) FROM (SELECT name, avg(loss) OVER (PARTITION BY run ORDER BY seq, idx ROWS BETWEEN "
    "99 PRECEDING AND CURRENT ROW) AS a FROM trace_bench_step) WHERE a > 1.2 GROUP BY name",
}


def trace(count: int) -> Items:
    """Return items as columns: one run, a thousand a second."""
    rng = np.random.default_rng(7)
    norm = rng.gamma(2.0, 10.0, count)
    norm[rng.random(count) < 0.05] = np.nan
    place = np.arange(count)
    return Items(
        place // 256 + 1, place % 256, np.zeros(count, np.int64), Text(np.zeros(count, np.int32), ["run"]),
        1_800_000_000_000_000_000 + place * 1_000_000,
        {
            "name": Text(rng.integers(0, 4, count).astype(np.int32), NAMES),
            "loss": Number(rng.normal(1.0, 0.4, count)), "lr": Number(rng.random(count)), "norm": Number(norm),
            "ms": Number(rng.gamma(3.0, 4.0, count)), "tokens": Integer(rng.integers(512, 4096, count)),
        },
    )  # fmt: skip


def timed(work: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median time of some rounds, after one that is not counted.

    What runs on one core is timed by the processor time that it took, which neighbours on the machine do not change much.
    """
    work()
    times = []
    for _ in range(rounds):
        began = clock()
        work()
        times.append(clock() - began)
    return statistics.median(times)


def stream(program: Program, items: Items) -> int:
    """Feed all items; return how many changes there were."""
    engine = Engine([condition(program, name) for name in program.facts], kinds_of(program.case("Step")))
    state: State = {}
    changes = 0
    for start in range(0, len(items), BATCH):
        changes += len(engine.feed(items.take(slice(start, start + BATCH)), state).changes.fact)
    return changes


def loop(items: Items) -> int:
    """Judge f02, f09 and f11 item by item, as a person would write it."""
    loss, lr, norm = (items.fields[name].values.tolist() for name in ("loss", "lr", "norm"))  # type: ignore[union-attr]
    last: deque[float] = deque(maxlen=100)
    norms: deque[float] = deque(maxlen=20)
    total, found = 0.0, 0
    for here, rate, size in zip(loss, lr, norm, strict=True):
        if len(last) == 100:
            total -= last[0]
        last.append(here)
        total += here
        norms.append(size)
        found += here > 1.2 and rate < 0.1
        found += total / len(last) > 1.2
        found += max((value for value in norms if value == value), default=0.0) > 50  # noqa: PLR0124
    return found


def log(program: Program, items: Items, count: int) -> list[Any]:
    """Return the first items as messages of the log."""
    messages = []
    columns = {name: value.plain(np.arange(count)) for name, value in items.fields.items()}
    for start in range(0, count, 256):
        records = []
        for i in range(start, min(start + 256, count)):
            body = make_item(program, "Step", {name: values[i] for name, values in columns.items()}).encode()
            records.append(Record(i + 1, "trace.bench.step", 1, i, int(items.time[i]), msgspec.Raw(body), None))
        data = encode_frame(records, run="run", attempt=1, rank=0, writer="a" * 16, family="trace")
        messages.append(_Message(start // 256 + 1, 0, "", data))
    return messages


class _Message(msgspec.Struct):
    seq: int
    stored: int
    subject: str
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


def from_log(program: Program, messages: list[Any], *, at_once: bool = True) -> int:
    """Decode messages, many records at once or one by one, and judge what is in them."""
    info = program.case("Step")
    source = source_of(info)
    engine = Engine([condition(program, name) for name in program.facts], kinds_of(info))
    state: State = {}
    changes = 0
    never = 1 << 62
    with (
        patch.object(opening, "LEAST", sealed.LEAST if at_once else never),
        patch.object(own_events, "LEAST", own_columns.LEAST if at_once else never),
    ):
        for start in range(0, len(messages), BATCH // 256):
            batch = Batch.read(messages[start : start + BATCH // 256])
            changes += len(engine.feed(source.read(batch).items(batch), state).changes.fact)
            batch.release()
    return changes


def table(rows: int) -> duckdb.DuckDBPyConnection:
    """Return a database with the table of the case."""
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE trace_bench_step AS SELECT (i // 256 + 1)::BIGINT AS seq, (i % 256)::INTEGER AS idx, 0 AS part, "
        "'run' || (i * 10 // $1) AS run, 1 AS attempt, 0 AS rank, i::BIGINT AS step, "
        "make_timestamp_ns(1800000000000000000 + i * 1000000) AS time, "
        "['fwd', 'bwd', 'step', 'data'][1 + (hash(i) % 4)::INTEGER] AS name, 1 + (hash(i, 1) % 1000) / 1000.0 - 0.5 AS loss, "
        "(hash(i, 2) % 1000) / 1000.0 AS lr, CASE WHEN hash(i, 3) % 20 > 0 THEN (hash(i, 4) % 100)::DOUBLE END AS norm, "
        "(hash(i, 5) % 40)::DOUBLE AS ms, (512 + hash(i, 6) % 4096)::BIGINT AS tokens, "
        "'measured' AS origin, '' AS source FROM range($1) r(i)",
        [rows],
    )
    return con


def store_truths(con: duckdb.DuckDBPyConnection, program: Program, rows: int) -> Judged:
    """Fold the items of the table and store the truth of window facts, as a projector does."""
    info = program.case("Step")
    facts = [condition(program, name) for name in program.facts]
    judged = Judged("Bench", info, facts)
    engine, state = Engine(facts, kinds_of(info)), State()
    front = "seq BIGINT, idx INTEGER, run VARCHAR, attempt INTEGER, rank INTEGER, step BIGINT, time TIMESTAMP_NS"
    con.execute(f"CREATE TABLE {judged.table} ({front}, {judged.columns})")
    size = 1 << 19
    for start in range(0, rows, size):
        some = con.execute(
            "SELECT seq, idx, epoch_ns(time) AS ns, loss, lr, norm, ms, tokens, list_position($3, name) - 1 AS name, "
            "right(run, 1)::INTEGER AS run FROM trace_bench_step WHERE step >= $1 AND step < $2 ORDER BY seq, idx",
            [start, start + size, NAMES],
        ).fetchnumpy()
        numbers = {name: Number(np.ma.filled(some[name], np.nan)) for name in ("loss", "lr", "norm", "ms")}
        name, run = Text(some["name"].astype(np.int32), NAMES), Text(some["run"].astype(np.int32), RUNS)
        fields: dict[str, Values] = {"name": name, **numbers, "tokens": Integer(np.asarray(some["tokens"]))}
        items = Items(some["seq"], some["idx"], np.zeros(len(some["seq"]), np.int64), run, some["ns"], fields)
        truths = pa.table(judged.truths(engine.feed(items, state)))
        con.register("truths", truths)
        con.execute(
            f"INSERT INTO {judged.table} SELECT t.* EXCLUDE (origin, source, part, name, loss, lr, norm, ms, tokens), part, name, "
            "loss, lr, norm, ms, tokens, truths.* FROM (SELECT * FROM trace_bench_step WHERE step >= $1 AND step < $2 "
            "ORDER BY seq, idx) t POSITIONAL JOIN truths", [start, start + size],
        )  # fmt: skip
        con.unregister("truths")
    return judged


def sql(program: Program, rows: int, rounds: int, figures: dict[str, Any]) -> None:
    """Count where each fact holds, by name."""
    con = table(rows)
    judged = store_truths(con, program, rows)
    relation = relation_of(program.case("Step"))
    print(f"SQL: items of {rows:,} that a fact holds for, by name")
    for name in program.facts:
        one = condition(program, name)
        stored = windowed(one)
        view = judged.view(name) if stored else fact_sql(one, relation)
        asked = f"SELECT name, count(*) FROM ({view}) WHERE holds GROUP BY name"
        ours = timed(lambda sql=asked: con.execute(sql).fetchall(), rounds)  # type: ignore[misc]
        figures[name] = {"rows": rows, "stored": stored, "view_ms": ours * 1e3}
        said = f"  {name:10} {ours * 1e3:8.0f} ms" + (" from what was stored" if stored else "")
        plain = BY_HAND.get(name)
        if plain is not None and not stored:
            assert sorted(con.execute(asked).fetchall()) == sorted(con.execute(plain).fetchall())
            hand = timed(lambda sql=plain: con.execute(sql).fetchall(), rounds)  # type: ignore[misc]
            figures[name]["by_hand_ms"] = hand * 1e3
            said += f", by hand {hand * 1e3:8.0f} ms, ratio {ours / hand:.2f}"
        print(said)
    for name in (name for name in BY_HAND if "OVER" in BY_HAND[name]):
        few = rows // 10
        con.execute(f"DELETE FROM trace_bench_step WHERE step >= {few}")
        con.execute(f"DELETE FROM {judged.table} WHERE step >= {few}")
        found = {}
        ways = {"stored": judged.view(name), "by SQL alone": fact_sql(condition(program, name), relation)}
        for way, view in ways.items():
            question = f"SELECT name, count(*) FROM ({view}) WHERE holds GROUP BY name"
            assert sorted(con.execute(question).fetchall()) == sorted(con.execute(BY_HAND[name]).fetchall())
            found[way] = timed(lambda sql=question: con.execute(sql).fetchall(), rounds) * 1e3  # type: ignore[misc]
        found["by hand"] = timed(lambda sql=BY_HAND[name]: con.execute(sql).fetchall(), rounds) * 1e3  # type: ignore[misc]
        figures[f"{name}_of_a_tenth_ms"] = found
        print(f"  {name:10} of {few:,}: " + ", ".join(f"{way} {ms:,.0f} ms" for way, ms in found.items()))


def main() -> None:
    """Measure all of it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    program = load_text(MODULE, "bench.mk")
    items = trace(options.items)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end=""
    )
    print(f"medians of {options.rounds} rounds")
    own = time.process_time
    seconds = timed(lambda: stream(program, items), options.rounds, own)
    rate = options.items / seconds
    figures: dict[str, Any] = {"stream_items_s": rate}
    print(f"stream, 20 facts, columns in          {rate:12,.0f} items/s")
    some = min(options.items, 200_000)
    messages = log(program, items, some)
    for way, at_once in (("at once", True), ("one by one", False)):
        seconds = timed(lambda at_once=at_once: from_log(program, messages, at_once=at_once), options.rounds, own)  # type: ignore[misc]
        figures[f"from_log_{way.replace(' ', '_')}_items_s"] = some / seconds
        print(f"stream, 20 facts, bytes of the log in {some / seconds:12,.0f} items/s, records read {way}")
    few = items.take(slice(0, min(options.items, 200_000)))
    seconds = timed(lambda: loop(few), options.rounds, own)
    naive = len(few) / seconds
    print(f"loop in Python, 3 facts               {naive:12,.0f} items/s; {naive * 3 / 20:,.0f} scaled to 20 facts")
    figures["loop_items_s"] = naive * 3 / 20
    print(f"stream over loop                      {rate / (naive * 3 / 20):12,.0f} times")
    sql(program, options.rows, options.rounds, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
