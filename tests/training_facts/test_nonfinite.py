"""`nonfinite`: how many numbers of one event are NaN or infinite, for cases that read `metrics.scalars`."""

import math
from collections.abc import Callable
from typing import Any

from morphogen.consumers.projections import Store
from morphogen.schemas import KnowledgeLoaded, Metrics
from morphogen.schemas.knowledge.program import load_text

from ..projections.conftest import Log

OpenStore = Callable[..., Store]
CatchUp = Callable[..., int]
Ask = Callable[..., list[Any]]

NAN, INF = math.nan, math.inf
MODULE = """
system Numbers {
  trace_schema { variant Signal {
    case Any from "metrics.scalars" { nonfinite: int }
    case Loss from "metrics.scalars" { loss: float, nonfinite: float? }
    case Some from "metrics.scalars" { loss: float?, lr: float?, nonfinite: int? }
  } }
  knowledge {
    fact strange(t: Signal.Any) { return t.nonfinite > 0 }
    fact broken(t: Signal.Loss) { return t.nonfinite > 1 || sum(t.nonfinite) over last 2 > 2 }
    fact odd(t: Signal.Some) { return t.nonfinite > 0 && is_known(t.lr) }
    rule "Look" { when: strange or broken or odd  recommend: "look" }
  }
}
"""


def test_it_counts_nan_and_infinities_of_all_names_and_a_number_of_that_name_wins(
    log: Log, open_store: OpenStore, catch_up: CatchUp, ask: Ask
) -> None:
    log.write(
        KnowledgeLoaded(name="numbers", path="n.mk", sha256=load_text(MODULE).sha256, text=MODULE, systems=["Numbers"])
    )
    for values in (
        {"loss": 1.0, "lr": 0.1}, {"loss": NAN, "lr": INF, "acc": -INF}, {"acc": NAN}, {"lr": 0.1}, {"loss": 1, "nonfinite": 7},
        {"lr": NAN}, {"loss": INF, "nonfinite": NAN},
    ):  # fmt: skip
        log.write(Metrics(values=values))
    store = open_store()
    catch_up(store, log, batch_bytes=1)

    assert ask(store, "SELECT seq - 2, nonfinite FROM trace_numbers_any ORDER BY ALL") == [
        (0, 0), (1, 3), (2, 1), (3, 0), (4, 7), (5, 1), (6, None),
    ]  # fmt: skip
    # It is there in every event, and makes none an item of a case that names other numbers.
    assert ask(store, "SELECT seq - 2 FROM trace_numbers_loss ORDER BY ALL") == [(0,), (1,), (4,), (6,)]
    assert ask(store, "SELECT seq - 2, nonfinite FROM trace_numbers_some ORDER BY ALL") == [
        (0, 0), (1, 3), (3, 0), (4, 7), (5, 1), (6, None),
    ]  # fmt: skip
    for fact in ("strange", "broken", "odd"):
        expected = ask(
            store,
            "SELECT seq, idx, holds FROM (SELECT *, lag(holds) OVER (ORDER BY seq, idx) AS before "
            f"FROM fact_numbers_{fact}) WHERE holds IS DISTINCT FROM before ORDER BY ALL",
        )
        assert ask(store, f"SELECT seq, idx, holds FROM facts WHERE fact = '{fact}' ORDER BY ALL") == expected
        assert any(holds for *_, holds in expected)
