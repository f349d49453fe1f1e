"""A module in the log becomes tables, views and changes of facts, like any other projection."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.consumers.projections import Store
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.consumers.projections.sql.errors import PositionNotReached
from morphogen.consumers.projections.sql.service import reach
from morphogen.consumers.projections.sql.snapshot import write_snapshot
from morphogen.schemas import KnowledgeDropped, LayerHealth, Metrics, Names
from morphogen.schemas.knowledge.cases import make_item

from ..projections.conftest import Log
from .modules import MATMUL, loaded, perf, program

OpenStore = Callable[..., Store]
CatchUp = Callable[..., int]
Ask = Callable[..., list[Any]]


def health(*norms: float, layers: tuple[str, ...] = ("fc1", "fc2")) -> LayerHealth:
    return LayerHealth(layers=Names(layers), grad_norm=np.array(norms, np.float32))


def test_items_lie_in_the_table_of_their_case_and_facts_are_views_over_it(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(perf(12.0), perf(9.0), perf(float("nan")), perf(8.0, origin="simulated"), step=3)
    store = open_store()

    catch_up(store, log)

    assert ask(store, "SELECT tflops, bound, origin FROM trace_mat_mul_performance WHERE idx <> 2") == [
        (12.0, "mem", "measured"), (9.0, "mem", "measured"), (8.0, "mem", "simulated"),
    ]  # fmt: skip
    assert ask(store, "SELECT idx, truth, holds FROM fact_mat_mul_is_slow ORDER BY idx") == [
        (0, False, False), (1, True, True), (2, None, False),
    ]  # fmt: skip
    assert ask(store, "SELECT idx, fact, holds, first FROM facts WHERE fact = 'is_slow' ORDER BY idx") == [
        (0, "is_slow", False, True), (1, "is_slow", True, False), (2, "is_slow", False, False),
    ]  # fmt: skip


def test_the_changes_that_the_stream_found_are_those_that_the_views_show(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    rng = np.random.default_rng(5)
    for _ in range(12):
        run = str(rng.choice(["one", "two"]))
        log.write(
            *(
                perf(float(v), step_name=str(s))
                for v, s in zip(rng.integers(5, 15, 4), rng.choice(["a", "b"], 4), strict=True)
            ),
            run=run,
        )
        log.write(health(*rng.choice([1e-4, 1.0, np.nan], 2)), run=run, rank=int(rng.integers(0, 2)))
        log.write(Metrics(values={"loss": float(rng.integers(1, 9))}), Metrics(values={"other": 1.0}), run=run)
    store = open_store()
    catch_up(store, log, batch_bytes=1)

    for fact, key in (
        ("is_slow", "run"), ("regresses", "run, step_name"), ("vanishing", "run, layer, rank_"), ("diverges", "run"),
    ):  # fmt: skip
        expected = ask(
            store,
            f"SELECT seq, idx, part, holds FROM (SELECT *, lag(holds) OVER (PARTITION BY {key} ORDER BY seq, idx, part) AS "
            f"before FROM fact_mat_mul_{fact}) WHERE holds IS DISTINCT FROM before ORDER BY ALL",
        )
        found = ask(store, f"SELECT seq, idx, part, holds FROM facts WHERE fact = '{fact}' ORDER BY ALL")
        assert found == expected
        assert len(found) > 2


def test_a_change_says_which_values_made_it_so_and_whose(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    seq = log.write(health(1.0, 1e-5), run="r", step=7, rank=1)
    store = open_store()
    catch_up(store, log)

    ((key, evidence, event, since),) = ask(
        store, "SELECT key, evidence, event, seq FROM facts_now WHERE fact = 'vanishing' AND holds"
    )

    assert json.loads(key) == {"layer": "fc2", "rank": 1}
    assert json.loads(evidence) == {"max(grad_norm) over last 2 per layer, rank": float(np.float32(1e-5))}
    assert (event, since) == ("aaaaaaaaaaaaaaaa.health.1", seq)


def test_rules_fire_where_their_conditions_come_to_hold_also_over_several_cases(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(perf(9.0), perf(9.5), perf(11.0))
    wrong = make_item(program(), "Correctness", {"passed": False, "max_error": 1.0})
    log.write(wrong)
    log.write(perf(8.0))
    store = open_store()
    catch_up(store, log)

    fired = ask(store, "SELECT kind, name, seq, idx FROM rules_fired ORDER BY ALL")

    assert fired == [
        ("hint", "Auto", 2, 0), ("hint", "Auto", 4, 0), ("rule", "Both", 4, 0), ("rule", "Fuse", 2, 0), ("rule", "Fuse", 4, 0),
    ]  # fmt: skip
    assert ask(store, "SELECT name, executable, advice::VARCHAR FROM knowledge_rules ORDER BY ALL") == [
        ("Auto", True, None), ("Both", True, None), ("Fuse", True, None), ("Think", False, '["it feels slow"]'),
    ]  # fmt: skip


def test_a_newer_text_takes_the_place_of_the_older_and_is_applied_to_the_whole_past(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(perf(9.0), perf(12.0))
    store = open_store()
    catch_up(store, log)
    assert ask(store, "SELECT count(*) FROM fact_mat_mul_is_slow WHERE holds") == [(1,)]

    log.write(loaded(MATMUL.replace("SLOW = 10.0", "SLOW = 20.0")))
    log.write(perf(13.0))
    catch_up(store, log)

    assert ask(store, "SELECT count(*) FROM fact_mat_mul_is_slow WHERE holds") == [(3,)]
    assert ask(store, "SELECT seq, idx, holds FROM facts WHERE fact = 'is_slow'") == [(2, 0, True)]


def test_a_case_with_other_fields_gets_a_new_table_and_keeps_what_still_fits(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(perf(9.0))
    newer = MATMUL.replace("speedup: float?", "speedup: float?, watts: float?")
    store = open_store()
    catch_up(store, log)
    log.write(loaded(newer))
    log.write(perf(7.0, text=newer))
    catch_up(store, log)

    assert ask(store, "SELECT tflops, watts FROM trace_mat_mul_performance ORDER BY seq") == [(9.0, None), (7.0, None)]


def test_a_dropped_system_is_seen_no_more_and_comes_back_whole(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)
    log.write(KnowledgeDropped(system="MatMul"))
    log.write(perf(8.0))
    catch_up(store, log)
    assert "trace_mat_mul_performance" not in store.views()
    assert ask(store, "SELECT count(*) FROM facts") == [(0,)]

    log.write(loaded())
    log.write(perf(7.0))
    catch_up(store, log)

    assert ask(store, "SELECT tflops FROM trace_mat_mul_performance ORDER BY seq") == [(9.0,), (8.0,), (7.0,)]
    assert ask(store, "SELECT seq, holds FROM facts WHERE fact = 'is_slow'") == [(2, True)]


def test_a_store_that_is_opened_again_goes_on_where_it_was(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, fresh: Callable[[], Log]
) -> None:
    log.write(loaded())
    values = [9.0, 12.0, 11.0, 8.0, 13.0, 9.0, 10.0, 14.0]
    store = open_store()
    for value in values:
        log.write(perf(value), health(value, 1 / value**9))
        catch_up(store, log)
        store.close()
        store = open_store()
    other = open_store("other")
    catch_up(other, log)

    for table in ("facts", "rules_fired", "trace_mat_mul_performance", "trace_mat_mul_layer"):
        assert store.content_hash(table) == other.content_hash(table)
    for upto in range(2, len(log.messages), 3):
        assert store.content_hash("facts", upto) == other.content_hash("facts", upto)


def test_an_event_that_is_not_as_declared_is_rejected_with_the_reason_and_stays_in_events(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(
        ("trace.mat_mul.performance", 1, {"step_name": "a", "tflops": "fast", "bound": "mem"}),
        ("trace.mat_mul.performance", 1, {"step_name": "a", "tflops": 1.0, "bound": "neither"}),
        ("trace.mat_mul.performance", 1, {"tflops": 1.0, "bound": "mem"}),
        ("trace.mat_mul.performance", 1, {"step_name": "a", "tflops": 1.0, "bound": "mem", "origin": "guessed"}),
        ("trace.mat_mul.performance", 1, {"step_name": "a", "tflops": 3, "bound": "mem", "more": [1]}),
        ("trace.mat_mul.performance", 1, [1, 2]),
    )
    store = open_store()
    catch_up(store, log)

    assert ask(store, "SELECT idx, tflops FROM trace_mat_mul_performance") == [(4, 3.0)]
    assert [idx for (idx,) in ask(store, "SELECT idx FROM trace_rejected ORDER BY idx")] == [0, 1, 2, 3, 5]
    assert ask(store, "SELECT count(*) FROM events WHERE type = 'trace.mat_mul.performance'") == [(6,)]


def test_a_text_that_is_not_understood_is_one_warning_and_stops_nothing(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, caplog: Any
) -> None:
    log.write(loaded("system Broken { this is no module", systems=["Broken"]))
    log.write(loaded())
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)
    store.close()
    store = open_store()

    assert ask(store, "SELECT count(*) FROM fact_mat_mul_is_slow") == [(1,)]
    assert [one.message.count("Broken") for one in caplog.records if "left out" in one.message] == [1]


def test_facts_are_there_to_be_asked_before_any_module_is_loaded(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    store = open_store()
    log.write(Metrics(values={"loss": 1.0}))
    catch_up(store, log)

    for view in (
        "facts",
        "facts_now",
        "rules_fired",
        "knowledge",
        "knowledge_facts",
        "knowledge_rules",
        "trace_rejected",
    ):
        assert ask(store, f"SELECT * FROM {view}") == []


def test_a_store_without_knowledge_does_without_the_language(tmp_path: Path) -> None:
    """Importing it takes longer than a small query does."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom morphogen.consumers.projections import Store\n"
        "store = Store.open(Path(sys.argv[1]), epoch='one')\n"
        "print(store.cursor().execute('SELECT count(*) FROM facts').fetchone(), end=' ')\n"
        "print([name for name in sys.modules if name.startswith('morphogen.schemas.knowledge.')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store.duckdb")], capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "(0,) []", ran.stderr


LISTED = """
system Li {
  trace_schema { variant I { case P { x: float, l: [float] } } }
  knowledge {
    fact within(t: P) { return t.x in t.l }
    fact three(t: P) { return len(t.l) >= 3 }
    fact grown(t: P) { return len(t.l) > len(first(t.l) over last 2) }
  }
}
"""


def test_facts_ask_lists_as_they_are_stored(log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask) -> None:
    made = program(LISTED, "li.mk")
    log.write(loaded(LISTED, "li.mk"))
    some: list[list[Any]] = [[], [1.0, 2.0], [1.5, np.nan, np.inf]]
    log.write(*(make_item(made, "P", {"x": 1.0, "l": one}) for one in some))
    store = open_store()
    catch_up(store, log)

    assert ask(store, "SELECT truth FROM fact_li_within ORDER BY idx") == [(False,), (True,), (None,)]
    assert ask(store, "SELECT truth FROM fact_li_three ORDER BY idx") == [(False,), (False,), (True,)]
    for view in ("fact_li_grown", "_sql_fact_li_grown"):
        assert ask(store, f"SELECT truth FROM {view} ORDER BY idx") == [(False,), (True,), (True,)]


def test_a_view_that_knowledge_cannot_make_is_left_out_and_stops_nothing(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, caplog: Any
) -> None:
    twice = (
        "system Dup { trace_schema { variant I { case P { x: float } case p { y: float } } } "
        "knowledge { fact a(t: P) { return t.x > 1 } fact b(t: p) { return t.y > 1 } } }"
    )
    log.write(loaded(twice, "dup.mk", ["Dup"]))
    log.write(loaded())
    log.write(perf(9.0))
    for name in ("one", "two"):  # while it runs, and when it is opened again
        store = open_store()
        catch_up(store, log)
        assert ask(store, "SELECT count(*) FROM fact_mat_mul_is_slow") == [(1,)], name
        assert [name for name in store.views() if name.startswith("fact_dup")] == ["fact_dup_a"]
        store.close()
    assert any("'fact_dup_b' is left out" in one.message and "know drop" in one.message for one in caplog.records)

    log.write(KnowledgeDropped(system="Dup"))
    store = open_store()
    catch_up(store, log)
    assert ask(store, "SELECT system FROM knowledge WHERE in_force") == [("MatMul",)]


def test_of_two_systems_that_are_one_word_in_sql_the_first_is_followed(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, caplog: Any
) -> None:
    log.write(loaded())
    log.write(loaded(MATMUL.replace("system MatMul", "system Mat_Mul"), "other.mk"))
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)

    assert ask(store, "SELECT DISTINCT system FROM knowledge_facts") == [("MatMul",)]
    assert any("Mat_Mul" in one.message and "MatMul has the same names in SQL" in one.message for one in caplog.records)


def test_systems_whose_names_run_together_with_their_cases_are_kept_apart(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, caplog: Any
) -> None:
    texts = {}
    for name, owner in (("A", "B_X"), ("A_B", "X")):
        texts[owner] = (
            f"system {owner} {{ trace_schema {{ variant I {{ case C {{ x: float }} }} }} }}\n"
            f"system {name} {{ knowledge {{ fact grown(t: {owner}.C) {{ return t.x > first(t.x) over last 2 }} }} }}"
        )
        log.write(loaded(texts[owner], f"{owner}.mk", [owner, name]))
    for owner, values in (("B_X", (1.0, 2.0)), ("X", (2.0, 1.0))):
        log.write(*(make_item(program(texts[owner], f"{owner}.mk"), "C", {"x": x}) for x in values))
    store = open_store()
    catch_up(store, log)

    assert not caplog.records
    assert ask(store, "SELECT truth FROM fact_a_grown ORDER BY idx") == [(False,), (True,)]
    assert ask(store, "SELECT truth FROM fact_a_b_grown ORDER BY idx") == [(False,), (False,)]


def test_a_text_of_the_log_reads_no_file(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, caplog: Any, tmp_path: Path
) -> None:
    (tmp_path / "secret.mk").write_text("system Sec { const TOKEN = 3.0 }")
    text = (
        f'use "{tmp_path}/secret.mk"\nsystem Leak {{ trace_schema {{ variant I {{ case P {{ x: float }} }} }} '
        "knowledge { fact f(t: P) { return t.x > Sec.TOKEN } } }"
    )
    log.write(loaded(text, "leak.mk", ["Leak"]))
    store = open_store()
    catch_up(store, log)

    assert ask(store, "SELECT * FROM knowledge_facts") == []
    assert any("the log does not hold the text of" in one.message for one in caplog.records)


def test_facts_that_older_code_judged_are_judged_again_when_the_store_is_opened(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(loaded())
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)
    with store.cursor() as cursor:
        cursor.execute("UPDATE morphogen.positions SET signature = 'older' WHERE projection = 'facts_mat_mul'")
        cursor.execute("UPDATE p_facts_mat_mul_1._fact_changes_mat_mul SET holds = NOT holds")
    store.close()

    store = open_store()
    assert [(one.generation, one.live) for one in store.status() if one.projection == "facts_mat_mul"] == [
        (1, True), (2, False),
    ]  # fmt: skip
    catch_up(store, log)
    assert [(one.generation, one.live) for one in store.status() if one.projection == "facts_mat_mul"] == [(2, True)]
    assert ask(store, "SELECT holds FROM facts WHERE fact = 'is_slow'") == [(True,)]


def test_nothing_is_whole_while_tables_that_the_log_calls_for_are_made(
    log: Log, open_store: OpenStore, catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)
    last = log.write(loaded())
    seen: list[tuple[str, int, bool]] = []
    derive, swap = store._derive, store.swap

    def look(moment: str) -> None:
        seen.append((moment, store.position(), store.whole(last)))

    def deriving() -> None:
        look("known")
        derive()

    def swapping(generations: Any) -> None:
        look("built")
        assert "trace_mat_mul_performance" in store.in_the_making()
        swap(generations)

    monkeypatch.setattr(store, "_derive", deriving)
    monkeypatch.setattr(store, "swap", swapping)
    catch_up(store, log)

    assert seen[:2] == [("known", last, False), ("built", last, False)]
    assert store.whole(last)
    assert store.in_the_making() == []


def test_who_waits_too_short_for_tables_is_told_which(
    log: Log, open_store: OpenStore, catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = log.write(loaded())
    store = open_store()
    without_builds(store, log, catch_up, monkeypatch)

    asyncio.run(reach(store, last, 0.01, whole=False))
    with pytest.raises(PositionNotReached, match=r"still being made after 0\.0 s: .*trace_mat_mul_performance"):
        asyncio.run(reach(store, last, 0.01, whole=True))
    store.give_up(dict.fromkeys(store.behind, "its past is gone"))
    asyncio.run(reach(store, last, 0.01, whole=True))


def test_tables_of_a_newer_text_are_waited_for(
    log: Log, open_store: OpenStore, catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(loaded())
    store = open_store()
    catch_up(store, log)
    last = log.write(loaded(MATMUL.replace("SLOW = 10.0", "SLOW = 20.0")))
    without_builds(store, log, catch_up, monkeypatch)

    assert (store.position(), store.whole(last), store.in_the_making()) == (last, False, ["facts_mat_mul"])
    catch_up(store, log)
    assert store.whole(last)


def test_a_system_that_is_dropped_while_its_newer_text_is_made_holds_nobody_up(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(loaded())
    store = open_store()
    catch_up(store, log)
    log.write(loaded(MATMUL.replace("SLOW = 10.0", "SLOW = 20.0")))
    without_builds(store, log, catch_up, monkeypatch)
    log.write(KnowledgeDropped(system="MatMul"))
    last = log.write(perf(9.0))
    catch_up(store, log)

    assert (store.position(), store.whole(last)) == (last, True)
    last = log.write(loaded())
    catch_up(store, log)
    assert store.whole(last)
    assert ask(store, "SELECT seq, holds FROM facts WHERE fact = 'is_slow'") == [(4, True)]


def test_a_system_that_is_dropped_is_no_matter_for_a_store_that_is_opened_later(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask, tmp_path: Path
) -> None:
    log.write(loaded())
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)
    log.write(KnowledgeDropped(system="MatMul"))
    catch_up(store, log)
    store.close()
    store = open_store()
    last = log.write(perf(8.0))
    catch_up(store, log)
    assert write_snapshot(store, tmp_path / "copy").name == f"copy-{last}.duckdb"

    log.write(loaded())
    catch_up(store, log)
    assert ask(store, "SELECT seq, holds FROM facts WHERE fact = 'is_slow'") == [(2, True)]


def test_what_a_window_gives_is_the_same_to_the_last_digit_however_the_log_is_cut(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    rng = np.random.default_rng(1)
    log.write(
        loaded("""system Steps {
          trace_schema { variant T { case Step from "metrics.scalars" { loss: float } } }
          knowledge {
            fact rises(t: T.Step) { return slope(t.loss) over last 3 > 0 }
            fact spreads(t: T.Step) { return std(t.loss) over last 4 > 0.3 }
            fact climbs(t: T.Step) { return slope(t.loss) over 5s > 0 }
          }
        }""")
    )
    for _ in range(40):
        log.write(*(Metrics(values={"loss": one}) for one in rng.random(rng.integers(1, 8)).tolist()))
    found = []
    for name, size in (("small", 1), ("large", 1 << 24)):
        store = open_store(name)
        catch_up(store, log, 1)
        catch_up(store, log, batch_bytes=size)
        found.append(ask(store, "SELECT seq, idx, fact, evidence FROM facts ORDER BY ALL"))

    assert {fact for _, _, fact, _ in found[0]} == {"rises", "spreads", "climbs"}
    assert found[0] == found[1]


def without_builds(store: Store, log: Log, catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold the log for what is live, and leave what is to be made as it is."""

    async def nothing(*_: Any) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(Follower, "_build", nothing)
        catch_up(store, log)


@pytest.mark.parametrize("interruption", ["the end of the process", "a newer text"])
def test_a_rebuild_outlives_what_comes_meanwhile(
    log: Log, open_store: OpenStore, catch_up: CatchUp, interruption: str
) -> None:
    name = "trace_mat_mul_performance"
    log.write(loaded())
    log.write(perf(9.0))
    store = open_store()
    catch_up(store, log)
    store.rebuild([name])
    if interruption == "a newer text":
        log.write(loaded("system Other { trace_schema { variant T { case C { x: float } } } }"))
    else:
        store.close()
        store = open_store()

    catch_up(store, log)

    assert [(one.generation, one.live) for one in store.status() if one.projection == name] == [(2, True)]
