"""What SQL says of a run that grew."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from morphogen.consumers.projections import Store
from morphogen.consumers.projections.builtin import BUILTIN
from morphogen.consumers.projections.store.hashes import content_hash
from morphogen.schemas import (
    AdaptationFinished,
    AdaptationStarted,
    AlertRaised,
    ArtifactQuarantined,
    BlueprintMeasured,
    BlueprintProposed,
    BreakerChanged,
    DecisionOutcome,
    HostRestored,
    Names,
    Observed,
    PolicyUpdated,
    SlotFailed,
    SlotHealth,
    SlotStageChanged,
)

from .conftest import SECOND, Log, open_store
from .story import ACTIONS, SITES, decided, germinated, grown_run, measured, moved, observed

Ask = Callable[..., list[Any]]
Fold = Callable[..., Store]

VIEWS = sorted({name for cls in BUILTIN[11:16] for name in (*cls.tables, *cls.views) if not name.startswith("_")})


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The tables over a run that grew, and over shorter ones that each show one thing."""
    log = Log(chunk=100)
    log.write(*grown_run())
    log.write(
        SlotHealth(
            slots=Names(["a#0", "b#0", "c"]), stages=["training", "holding"], alpha=np.array([0, 0.5, 1], np.float32),
            grad_norm=np.array([np.nan, 1, 2], np.float32), grad_ratio=np.array([0.5], np.float32),
            missing={"grad_norm": [1, 99], "unheard": [0]},
        ),
        run="health",
    )  # fmt: skip
    log.write(*decided(0, 1, policy="unlucky"), *germinated("fc1#0", 0, 8, "ee" * 32), run="unmeasured")
    log.write(
        DecisionOutcome(decision="d0", slot="fc1#0", seed="fc1#0.1", blueprint="mlp64", stage="training", epochs=1),
        run="unmeasured",
    )
    log.write(
        AlertRaised(severity="critical", subject="fc1#0", message="it tripped", evidence={"failures": 3}),
        SlotFailed(slot="fc1#0", seed="fc1#0.1", error="nonfinite", message="nan", recovery="cut", recovered=True),
        HostRestored(reason="nonfinite", snapshot_step=40, loss=math.nan, slots=["fc1#0"]),
        BreakerChanged(name="load", from_state="closed", to_state="open", failures=5),
        ArtifactQuarantined(blueprint="ab" * 32, reason="nonfinite", failures=3),
        run="faulty",
    )
    log.write(observed(4, "seen"), run="shown")
    wide = Observed(
        observation="wide", epoch=0, nodes=Names([]), kinds=Names([]), feature_names=Names([]), features=np.array([0.1]),
        edges=[], actions=[], legal=[],
    )  # fmt: skip
    log.write(wide, run="shown")
    remote = decided(7, 1, policy="far")
    log.write(AdaptationStarted(sites=SITES, policy="remote"), measured(7, 1.0, 0), run="remote")
    log.write(*remote, run="remote", attempt=0)
    log.write(*germinated("fc1#0", 7, 8, "ef" * 32), run="remote")
    store = open_store(tmp_path_factory.mktemp("tables") / "store.duckdb", log)
    yield store
    store.close()


def test_decisions_say_which_helped_by_how_much_and_why_they_were_taken(grown: Store, ask: Ask) -> None:
    rows = ask(
        grown,
        "SELECT decision, op, slot, blueprint, reason, approved, blocked_by, executed, helped, contribution, accuracy_gain, "
        "reward FROM decisions WHERE run = 'grown' ORDER BY epoch",
    )

    assert rows == [
        ("d0", "germinate", "fc1#0", "mlp64", "because of 0", True, None, True, True, 0.75, 0.25, 0.5),
        ("d1", "germinate", "fc2#0", "norm", "because of 1", True, None, True, False, -0.25, None, -0.25),
        ("d2", "germinate", "fc2#0", "norm", "because of 2", False, "budget", False, None, None, None, None),
        ("d3", "wait", None, None, "because of 3", True, None, False, None, None, None, None),
    ]
    assert ask(
        grown,
        "SELECT refusal, options, guards[1].reason::VARCHAR FROM decisions WHERE run = 'grown' AND decision >= 'd2' ORDER BY 1",
    ) == [
        ("it was pruned", 3, ""),
        (None, 3, "too many weights"),
    ]


def test_slots_stand_where_their_last_change_left_them_and_dormant_ones_are_there_too(grown: Store, ask: Ask) -> None:
    rows = ask(
        grown,
        "SELECT slot, stage, seed, blueprint, alpha, params, contribution, decision, seeds, last_seed "
        "FROM slots WHERE run = 'grown' ORDER BY slot",
    )

    assert rows == [
        ("fc1#0", "fossilized", "fc1#0.1", "ab" * 32, 1.0, 4288, 0.75, "d0", 1, "fc1#0.1"),
        ("fc2#0", "pruned", None, None, 0.0, None, None, None, 1, "fc2#0.1"),
        ("fc2#1", "dormant", None, None, 0.0, None, None, None, 0, None),
    ]
    assert ask(grown, "SELECT stage FROM slots WHERE run = 'grown' ORDER BY slot", as_of=7) == [
        ("germinated",),
        ("dormant",),
        ("dormant",),
    ]


def test_a_slot_is_what_the_newest_attempt_made_of_it(log: Log, folded: Fold, ask: Ask) -> None:
    log.write(*grown_run())
    log.write(AdaptationStarted(sites=SITES, policy="bandit", host_params=166), measured(0, 2.0, 0), attempt=2)
    log.write(*germinated("fc2#1", 0, 8, "ef" * 32), attempt=2)
    store = folded(log)

    assert ask(store, "SELECT slot, stage, attempt FROM slots ORDER BY slot") == [
        ("fc1#0", "dormant", 2),
        ("fc2#0", "dormant", 2),
        ("fc2#1", "germinated", 2),
    ]
    assert ask(store, "SELECT attempt, status, germinated, val_loss FROM adaptations") == [(2, "growing", 1, 2.0)]
    assert ask(store, "SELECT count(*) FROM slot_changes WHERE attempt = 1") == [(7,)]
    assert ask(store, "SELECT decision, executed FROM decisions WHERE attempt = 1 AND decision = 'd0'") == [
        ("d0", True)
    ]


def test_an_adaptation_is_summed_up(grown: Store, ask: Ask) -> None:
    rows = ask(
        grown,
        "SELECT label, policy, status, epochs, plateaus, sites, germinated, fossilized, pruned, contributing, host_params, "
        "params_grown, val_loss, val_accuracy, measured.test_accuracy::DOUBLE FROM adaptations WHERE run = 'grown'",
    )

    assert rows == [("arm", "bandit", "finished", 4, 1, 2, 2, 1, 1, 1, 166, 4288, 1.0, 0.75, 0.875)]


def test_what_was_not_measured_is_null_and_what_was_nan_is_nan(grown: Store, ask: Ask) -> None:
    rows = ask(
        grown,
        "SELECT slot, site, stage, alpha, grad_norm, grad_ratio, weight_norm FROM slot_health WHERE run = 'health'",
    )

    assert math.isnan(rows[0][4])
    assert [row[:4] for row in rows] == [("a#0", "a", "training", 0), ("b#0", "b", "holding", 0.5), ("c", "c", None, 1)]
    assert [row[4:] for row in rows[1:]] == [(None, None, None), (2.0, None, None)]
    assert rows[0][5:] == (0.5, None)


def test_an_outcome_that_was_never_measured_neither_helped_nor_harmed(grown: Store, ask: Ask) -> None:
    where = "WHERE policy = 'unlucky'"

    assert ask(grown, f"SELECT executed, helped, contribution FROM decisions {where}") == [(True, None, None)]
    assert ask(grown, f"SELECT executed, measured, helped FROM policy_state {where}") == [(1, 0, 0)]


def test_a_decision_from_elsewhere_is_of_the_attempt_that_had_begun(grown: Store, ask: Ask) -> None:
    rows = ask(grown, "SELECT attempt, decision, approved, executed, options FROM decisions WHERE policy = 'far'")

    assert rows == [(1, "d7", True, True, 3)]


@pytest.mark.parametrize("ahead_s", [-5, 5])
def test_a_decision_from_a_host_whose_clock_is_wrong_is_of_the_attempt_that_had_begun_in_the_log(
    log: Log, folded: Fold, ask: Ask, ahead_s: int
) -> None:
    log.write(AdaptationStarted(sites=SITES, policy="remote"), attempt=1)
    log.write(*decided(0, 1), attempt=0, ahead=ahead_s * SECOND)
    log.write(AdaptationStarted(sites=SITES, policy="remote"), attempt=2)
    log.write(*decided(1, 1), attempt=0, ahead=ahead_s * SECOND)

    assert ask(folded(log), "SELECT attempt, decision FROM decisions ORDER BY decision") == [(1, "d0"), (2, "d1")]


@pytest.mark.parametrize(("grown", "total"), [(32, 198), (0, 166), (2**63 - 1, None)])
def test_a_growth_that_has_ended_has_the_parameters_that_it_ended_with(
    log: Log, folded: Fold, ask: Ask, grown: int, total: int | None
) -> None:
    """What `finish` prunes comes after the last epoch."""
    log.write(AdaptationStarted(sites=SITES, policy="bandit", host_params=166), measured(0, 1.0, 4320))
    sql = "SELECT params_grown, params_total FROM adaptations"
    assert ask(folded(log, "growing"), sql) == [(4320, 4486)]
    end = AdaptationFinished(epochs=1, germinated=2, fossilized=1, pruned=1, contributing=1, params_grown=grown)
    log.write(end)
    assert ask(folded(log, "finished"), sql) == [(grown, total)]


def test_a_policy_shows_what_it_learned_and_what_came_of_its_decisions(log: Log, folded: Fold, ask: Ask) -> None:
    log.write(*grown_run())
    log.write(*grown_run(), run="again")
    for step, (version, previous) in enumerate([("v1", None), ("v2", "v1")]):
        log.write(
            PolicyUpdated(policy="gnn-ppo", policy_version=version, previous=previous, samples=8, experiences=8 + 8 * step,
                          measured={"entropy": 0.5 - step / 4}),
            run="school",
        )  # fmt: skip
    store = folded(log)

    assert ask(
        store,
        "SELECT policy, policy_version, updates, experiences, runs, decisions, proposed, approved, executed, measured, helped, "
        "contribution, latency_p99_ns, learned_in FROM policy_state ORDER BY policy",
    ) == [
        ("bandit", None, 0, None, 2, 8, 6, 4, 4, 4, 2, 0.25, 800_000.0, None),
        ("gnn-ppo", "v2", 2, 16, 0, 0, 0, 0, 0, 0, 0, None, None, "school"),
    ]
    assert ask(store, "SELECT learning.entropy::DOUBLE FROM policy_state WHERE policy = 'gnn-ppo'") == [(0.25,)]
    assert ask(store, "SELECT site, blueprint, tries, helped, contribution, reward FROM policy_arms ORDER BY site") == [
        ("fc1", "mlp64", 2, 2, 0.75, 0.5),
        ("fc2", "norm", 2, 0, -0.25, -0.25),
    ]


def test_predictions_stand_beside_what_was_measured(log: Log, folded: Fold, ask: Ask) -> None:
    def proposed(request: str, blueprint: str, latency_ns: int | None) -> BlueprintProposed:
        return BlueprintProposed(
            request=request, site="fc1", rank=0, blueprint=blueprint, name="mlp64", spec=b"\x80", origin="template",
            params=4288, flops=8576, latency_ns=latency_ns, gain=0.5, parents=[],
        )  # fmt: skip

    log.write(*grown_run())
    log.write(proposed("r1", "ab" * 32, 1_000), proposed("r1", "00" * 32, None), proposed("r2", "11" * 32, 900))
    log.write(
        BlueprintMeasured(
            blueprint="ab" * 32, built=True, request="r1", params=4288, flops=8577, latency_ns=1_250, batch=64
        ),
        BlueprintMeasured(blueprint="00" * 32, built=False, error="out of memory"),
    )
    store = folded(log)

    assert ask(
        store,
        "SELECT request, built, error, params_exact, flops_exact, latency_error, gain, judged, contribution "
        "FROM blueprint_predictions ORDER BY seq",
    ) == [
        ("r1", True, None, True, False, 0.2, 0.5, 1, 0.75),
        ("r1", False, "out of memory", None, None, None, 0.5, 0, None),
        ("r2", None, None, None, None, None, 0.5, 0, None),
    ]


def test_what_went_wrong_is_there_to_ask(grown: Store, ask: Ask) -> None:
    assert ask(grown, "SELECT severity, subject, message, evidence.failures::INTEGER FROM alerts") == [
        ("critical", "fc1#0", "it tripped", 3)
    ]
    assert ask(grown, "SELECT error, recovery, recovered, try FROM slot_failures") == [("nonfinite", "cut", True, 1)]
    assert ask(grown, "SELECT slots, snapshot_step FROM host_restores WHERE isnan(loss)") == [(["fc1#0"], 40)]
    assert ask(grown, "SELECT name, to_state FROM breaker_changes") == [("load", "open")]
    assert ask(grown, "SELECT failures FROM quarantines") == [(3,)]


def test_events_give_back_an_observation_that_is_stored_once(grown: Store, ask: Ask) -> None:
    (one,), (two,) = ask(
        grown, "SELECT body FROM events WHERE type = 'decision.observed' AND run = 'shown' ORDER BY seq"
    )

    assert one["observation"] == "seen"
    assert one["nodes"] == ["", "fc1", "fc2"]
    assert one["features"][0] == pytest.approx(0.1)
    assert math.isnan(one["features"][1])
    assert one["features"][4] == math.inf
    assert one["legal"] == [True, True, True, False]
    assert [action["op"] for action in one["actions"]] == [action.op for action in ACTIONS]
    assert two["features"] == [0.1]
    stored = "SELECT count(*) FROM _event_rows WHERE body IS NOT NULL AND run = 'shown'"
    assert ask(grown, stored) == [(1,)]
    assert ask(
        grown, "SELECT observation, len(nodes), len(features) FROM observations WHERE run = 'shown' ORDER BY seq"
    ) == [
        ("seen", 3, 6),
        ("wide", 0, 1),
    ]


def test_numbers_that_no_column_holds_stop_nothing(log: Log, folded: Fold, ask: Ask) -> None:
    log.write(
        SlotStageChanged(slot="", seed=None, from_stage="?", to_stage="'; DROP", reason="\x00", alpha=math.nan,
                         epochs_in_stage=2**63),
        measured(2**40, math.inf, -(2**62)),
        PolicyUpdated(policy="", policy_version="", previous=None, samples=2**64 - 1, experiences=-1),
        *decided(-(2**40), 0, latency_ns=2**64 - 1),
        *grown_run(),
    )  # fmt: skip
    store = folded(log)

    for view in VIEWS:
        ask(store, f"SELECT * FROM {view}")
    assert ask(store, "SELECT epochs_in_stage FROM slot_changes WHERE slot = ''") == [(2**31 - 1,)]


def test_tables_rebuilt_in_other_batches_are_the_same_to_the_bit(log: Log, folded: Fold) -> None:
    log.write(*grown_run())
    log.write(*grown_run(), run="again", attempt=2)
    live = folded(log, "live", upto=9)
    log.chunk = 1
    live.close()
    live = folded(log, "live", batch_bytes=1)
    log.chunk = 100
    rebuilt = folded(log, "rebuilt")

    for table in live.tables():
        with live.reading(None) as left, rebuilt.reading(None) as right:
            assert content_hash(left, table) == content_hash(right, table), table


@given(cuts=st.lists(st.tuples(st.integers(0, 2**32), st.integers(1, 40)), min_size=12, max_size=12))
@examples(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_order_of_events_folds(cuts: list[tuple[int, int]], folded: Fold, ask: Ask) -> None:
    log = Log(chunk=100)
    for number, (seed, cut) in enumerate(cuts):
        events = [*grown_run(), *moved("fc2#0", "pruned", "embargoed", "resetting", "dormant")]
        random.Random(seed).shuffle(events)
        log.write(*events[:cut], *events[:cut], run=f"run {number}")
    store = folded(log, f"store{hash(tuple(cuts))}")

    for view in VIEWS:
        ask(store, f"SELECT * FROM {view}")
    assert ask(store, "SELECT count(*) = count(DISTINCT (run, slot)) FROM slots") == [(True,)]
    assert ask(store, "SELECT count(*) = count(DISTINCT (run, decision)) FROM decisions") == [(True,)]
