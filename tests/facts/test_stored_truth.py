"""What was stored of window facts as they were folded is what SQL alone and the stream say, whatever happened between."""

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.projections import Store
from morphogen.consumers.projections.builtin.layer_health import LayerHealthRows
from morphogen.consumers.projections.facts import Knowledge
from morphogen.consumers.projections.facts.items import kinds_of
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.schemas import Event, KnowledgeDropped, LayerHealth, Names, Record, encode_frame
from morphogen.schemas.knowledge.cases import make_item
from morphogen.schemas.knowledge.program import Program, load_text
from morphogen.schemas.knowledge.stream import Engine, Items, Values, condition, flags, integers, numbers, texts

from ..projections.conftest import SECOND, START, Log
from .modules import loaded

TEXT = """
system Odd {
  const LINE = 1.0
  trace_schema { variant Item {
    case Probe { x: float?, n: int, name: string?, ok: boolean }
    case Layer from "health.layer" { layer: string, grad_norm: float?, rank: int }
  } }
  knowledge {
    fact plain(t: Item.Probe) { return t.x > LINE }
    fact recent(t: Item.Probe) { return avg(t.x) over last 3 > LINE }
    fact lately(t: Item.Probe) { return count(t.x) over 3 s per name >= 2 }
    fact highest(t: Item.Probe) { return t.x >= max(t.x) }
    fact falls(t: Item.Probe) { return delta(t.n) over last 2 per ok < 0 and not recent(t) }
    fact quiet(t: Item.Layer) { return max(t.grad_norm) over last 2 per layer, rank < LINE }
  }
}
"""
OTHER = TEXT.replace("LINE = 1.0", "LINE = 2.0").replace("over last 3", "over last 2")
WINDOWED = ("recent", "lately", "highest", "falls", "quiet")
PROGRAMS = {text: load_text(text, "odd.mk") for text in (TEXT, OTHER)}


class Trace:
    """A log whose events may come late, and a store over it that can be opened anew and built anew."""

    def __init__(self, folder: Path) -> None:
        self.log = Log()
        self.path = folder / "store.duckdb"
        self.store = self.open()
        self.text = TEXT
        self._n = itertools.count(1)

    def open(self) -> Store:
        return Store.open(self.path, [Knowledge(), LayerHealthRows()], epoch="epoch", threads=1)

    def write(self, event: Event, at: int, run: str) -> None:
        record = Record(
            next(self._n), event.type, event.version, None, START + at * SECOND, msgspec.Raw(event.encode()), None
        )
        self.log.put(encode_frame([record], run=run, attempt=1, rank=0, writer="a" * 16, family=event.family))

    def follow(self) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await Follower(self.store, self.log, batch_bytes=300).catch_up()

        asyncio.run(main())

    def ask(self, sql: str) -> list[Any]:
        with self.store.reading(None) as con:
            found: list[Any] = con.execute(sql).fetchall()
            return found


probes = st.tuples(
    st.just("probe"),
    st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, None, float("nan")]),
    st.integers(-2, 2),
    st.sampled_from(["a", "b", None]),
    st.booleans(),
    st.sampled_from(["measured"] * 4 + ["simulated"]),
    st.sampled_from([0, 1, 2, 5, 9]),
    st.sampled_from(["one", "two"]),
)
layers = st.tuples(st.just("layer"), st.sampled_from([0.5, 2.0, float("nan")]), st.sampled_from(["one", "two"]))
acts = st.sampled_from([("follow",), ("restart",), ("rebuild",), ("reload",), ("drop",)])


@settings(max_examples=8)
@given(st.lists(st.one_of(probes, probes, probes, layers, acts), max_size=30))
def test_the_stored_truth_is_that_of_sql_and_of_the_stream(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = Trace(Path(folder))
        trace.log.write(loaded(TEXT, "odd.mk"))
        for step in steps:
            play(trace, *step)
        trace.log.write(loaded(trace.text, "odd.mk"))
        trace.follow()

        for fact in WINDOWED:
            stored = trace.ask(f"SELECT * FROM fact_odd_{fact} ORDER BY seq, idx, part")
            asked = trace.ask(f"SELECT * FROM _sql_fact_odd_{fact} ORDER BY seq, idx, part")
            assert repr(stored) == repr(asked)  # by their text, in which NaN is NaN
        for fact in ("plain", *WINDOWED[:4]):
            truth = trace.ask(f"SELECT truth FROM fact_odd_{fact} ORDER BY seq, idx")
            assert [row for (row,) in truth] == streamed(trace, fact)
        trace.store.close()


def play(trace: Trace, what: str, *values: Any) -> None:
    """Do one thing to a log and the store over it."""
    if what == "probe":
        x, n, name, ok, origin, at, run = values
        given = {"x": x, "n": n, "name": name, "ok": ok}
        trace.write(make_item(PROGRAMS[trace.text], "Probe", given, origin=origin), at, run)
    elif what == "layer":
        norm, run = values
        trace.write(LayerHealth(layers=Names(("fc",)), grad_norm=np.array([norm], np.float32)), 1, run)
    elif what == "reload":
        trace.text = OTHER if trace.text == TEXT else TEXT
        trace.log.write(loaded(trace.text, "odd.mk"))
    elif what == "drop":
        trace.log.write(KnowledgeDropped(system="Odd"))
    else:
        trace.follow()
        if what == "rebuild":
            trace.store.rebuild()
        elif what == "restart":
            trace.store.close()
            trace.store = trace.open()


def streamed(trace: Trace, fact: str) -> list[bool | None]:
    """Return what the stream says of the items in the table, all fed at once."""
    program: Program = PROGRAMS[trace.text]
    engine = Engine([condition(program, f"Odd.{fact}")], kinds_of(program.case("Probe")))
    rows = trace.ask("SELECT run, epoch_ns(time), origin, x, n, name, ok FROM trace_odd_probe ORDER BY seq, idx")
    if not rows:
        return []
    run, time, origin, x, n, name, ok = (list(column) for column in zip(*rows, strict=True))
    place = np.arange(len(rows))
    fields: dict[str, Values] = {"x": numbers(x), "n": integers(n), "name": texts(name), "ok": flags(ok)}
    measured = np.array([one == "measured" for one in origin])
    items = Items(place, place, place, texts(run), np.array(time), fields, measured)
    return engine.feed(items, {}).truth(0).plain(slice(None))  # type: ignore[arg-type]
