"""The crystallizer over a real log: candidates become versions, versions live, and a kill costs nothing twice."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG
from morphogen.consumers.crystallizer import GauntletConfig, Loader, NotMade, Registry, toolsmith
from morphogen.consumers.crystallizer.errors import DraftInterrupted, DraftOverBudget
from morphogen.consumers.crystallizer.gauntlet import running
from morphogen.consumers.crystallizer.lifecycle import DAY_NS, Life
from morphogen.consumers.crystallizer.past import RUN, Past
from morphogen.consumers.crystallizer.planning import learnable
from morphogen.consumers.crystallizer.splitting import split
from morphogen.consumers.crystallizer.worker import PAUSE_NS, Crystallizer, WorkerConfig, by_hand
from morphogen.kernels.sandbox import Capabilities, Declared, Sandbox
from morphogen.producers import executions
from morphogen.schemas import CrystalAsked, CrystalInvoked, CrystalMoved, CrystalShadowed, Event

from .kit import FENCED, GOOD, OUTSIDE, SIGNATURE, TOOL, WRONG, Drafting, course, record, shop

LIGHT = GauntletConfig(again=1, crossed=1, edges=1, wrong=1, worlds=1)  # how hard it tries is tested in its own room


def worker(
    bus: Bus, settings: Settings, sandbox: Sandbox, drafter: Drafting | None = None, **config: Any
) -> Crystallizer:
    config.setdefault("gauntlet", LIGHT)
    made = Crystallizer(
        bus, sandbox, settings.home, capabilities=shop(), drafter=drafter, environment={}, config=WorkerConfig(**config)
    )
    made.catch_up()
    return made


def told(bus: Bus, kind: str) -> list[Event]:
    return [seen.event for seen in bus.events(family=kind.partition(".")[0]) if seen.record.type == kind]  # type: ignore[misc]


def shadowed(at: Crystallizer, number: int, count: int, agreed: bool = True) -> None:
    for run in range(count):
        name = f"shadow.{number}.{agreed}.{run}.{time.time_ns()}"
        at.write(
            CrystalShadowed(
                tool=TOOL, number=number, request=name, agreed=agreed, reason="" if agreed else "7 is not 8"
            ),
            name,
        )
    at.catch_up()


def test_a_draft_by_a_model_is_judged_registered_promoted_and_called(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    listed = Drafting(FENCED.format(GOOD))
    at = worker(bus, settings, sandbox, listed)
    made = at.make(SIGNATURE, maker="llm")
    assert made.ok, made
    assert (made.number, made.cost_microusd, len(listed.asked)) == (1, 1000, 1)
    version = at.past.registry.version(TOOL, 1)
    assert version is not None
    assert version.state == "shadow"
    assert {stage.stage for stage in at.past.registry.attempts[made.attempt].checked} >= {"parse", "replay", "property"}
    shown = listed.asked[0].prompt
    attempt = at.past.registry.attempts[made.attempt]
    assert attempt.requested is not None
    for execution in attempt.requested.held_out:
        assert execution not in shown
    assert at.round().moved == ()  # nothing has run beside the live mode yet
    shadowed(at, 1, 8)
    (moved,) = at.round().moved
    assert (moved.was, moved.now, moved.trials) == ("shadow", "active", len(attempt.requested.held_out) + 8)
    loader = Loader(Registry(), shop(), sandbox)
    loader.refresh(seen.event for seen in bus.events(family="crystal") if isinstance(seen.event, Event))
    family = at.past.families.family(SIGNATURE)
    assert family is not None
    called = loader.call(SIGNATURE, course(3), "r1", family.traces[0].environment)
    assert called.ok
    assert called.value == {"item": "washer", "cents": 4 * 3}


def test_a_tool_is_made_by_synthesis_alone_and_made_anew_when_the_world_has_changed(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(14))
    at = worker(bus, settings, sandbox)
    (made,) = at.round().made
    assert (made.ok, made.maker, made.cost_microusd) == (True, "synthesis", 0), made
    drafted = at.past.registry.attempts[made.attempt].drafted
    assert drafted is not None
    assert drafted.program is not None
    shadowed(at, 1, 8)
    assert [moved.now for moved in at.round().moved] == ["active"]
    record(settings, range(14), each=1)  # from now on a fee on every piece
    done = at.round()
    assert [(moved.number, moved.now) for moved in done.moved] == [(1, "demoted")]
    assert [(one.number, one.maker) for one in done.made] == [(2, "synthesis")], done.made
    shadowed(at, 2, 8)
    assert [(moved.number, moved.now) for moved in at.round().moved] == [(2, "active")]
    loader = Loader(at.past.registry, shop(), sandbox)
    family = at.past.families.family(SIGNATURE)
    assert family is not None
    called = loader.call(SIGNATURE, {"count": 4, "item": "washer"}, "r1", family.traces[-1].environment)
    assert called.value == {"item": "washer", "cents": 16}


def test_a_model_is_told_what_was_wrong_once_and_its_last_text_is_kept_with_the_reason(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    listed = Drafting(WRONG, OUTSIDE, cost=1000)
    at = worker(bus, settings, sandbox, listed)
    made = at.make(SIGNATURE, maker="llm")
    assert not made.ok
    assert (made.stage, made.cost_microusd) == ("grammar", 2000)
    assert "replay" in listed.asked[1].prompt
    attempt = at.past.registry.attempts[made.attempt]
    assert attempt.drafted is not None
    assert "import os" in attempt.drafted.source
    assert attempt.failed is not None
    assert at.past.registry.tools == {}
    again = at.make(SIGNATURE, maker="llm")
    assert again.before
    assert (again.stage, again.reason) == (made.stage, made.reason)
    assert len(listed.asked) == 2


def test_a_text_that_fits_what_its_author_saw_only_is_refused_on_what_it_did_not(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(30))
    at = worker(bus, settings, sandbox)
    family = at.past.families.family(SIGNATURE)
    assert family is not None
    made, held = split(learnable(family))
    known = {(one.params["count"], one.params["item"]): one.output for one in made}
    assert any((one.params["count"], one.params["item"]) not in known for one in held)
    table = "\n".join(f"    if (count, item) == {key!r}:\n        return {value!r}" for key, value in known.items())
    source = f'def run(count: int, item: str) -> dict:\n    """Return what was seen."""\n    price = shop.price(item=item)\n{table}\n    return price\n'
    listed = Drafting(source)
    result = worker(bus, settings, sandbox, listed).make(SIGNATURE, maker="llm")
    assert (result.ok, result.stage) == (False, "replay")


def test_nothing_is_asked_where_the_budget_does_not_bear_it(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    record(settings, range(12))
    listed = Drafting(GOOD, GOOD, worst=5000, cost=4000)
    at = worker(bus, settings, sandbox, listed, budget_microusd=4999)
    with pytest.raises(DraftOverBudget, match="5000 micro-dollars, and 4999 are left"):
        at.make(SIGNATURE, maker="llm")
    assert listed.asked == []
    assert told(bus, "crystal.requested") == []
    unknown = Drafting(GOOD, worst=None)
    with pytest.raises(DraftOverBudget, match="nobody knows"):
        worker(bus, settings, sandbox, unknown, budget_microusd=10**9).make(SIGNATURE, maker="llm")
    assert unknown.asked == []
    rich = worker(bus, settings, sandbox, listed, budget_microusd=5000)
    assert rich.make(SIGNATURE, maker="llm").ok
    now = time.time_ns()
    assert rich.left(now) == 1000  # what was really paid, not what was reserved
    assert (
        worker(bus, settings, sandbox, listed, budget_microusd=5000).left(now) == 1000
    )  # known to the next process too
    assert rich.left(now + 2 * DAY_NS) == 5000


@pytest.mark.parametrize("ahead_days", [-3, 3])
def test_the_budget_goes_by_the_brokers_clock_whatever_the_asking_host_thinks(
    bus: Bus, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, ahead_days: int
) -> None:
    asked = CrystalAsked(attempt="a", number=0, prompt_sha256="0" * 64, by="host", reserved_microusd=900)
    with monkeypatch.context() as patch:
        now = time.time_ns()
        patch.setattr(time, "time_ns", lambda: now + ahead_days * DAY_NS)
        bus.emit(asked, run=RUN, msg_id="asked")

    at = worker(bus, settings, sandbox, budget_microusd=1000, budget_days=1.0)
    assert abs(at.past.clock_ns - now) < 3600 * 10**9
    assert at.left(at.past.clock_ns) == 100
    assert at.left(at.past.clock_ns + 2 * DAY_NS) == 1000


class Killed(BaseException):
    """Stands for the end of the process."""


class Dying(Drafting):
    """Ends the process while it is asked: `before` the reply comes, though it is paid for."""

    def ask(self, question: Any) -> Any:
        super().ask(question)
        raise Killed


def test_a_question_that_may_have_been_paid_for_is_not_asked_again(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    dying = Dying(GOOD, worst=5000)
    at = worker(bus, settings, sandbox, dying, budget_microusd=20_000)
    with pytest.raises(Killed):
        at.make(SIGNATURE, maker="llm")
    listed = Drafting(GOOD)
    after = worker(bus, settings, sandbox, listed, budget_microusd=20_000)
    assert after.left(time.time_ns()) == 15_000
    made = after.make(SIGNATURE, maker="llm")
    assert (made.ok, made.stage) == (False, "draft")
    assert "not asked again" in made.reason
    assert listed.asked == []
    record(settings, range(12, 20))  # newer executions are another attempt
    assert worker(bus, settings, sandbox, listed, budget_microusd=20_000).make(SIGNATURE, maker="llm").ok


def test_a_question_that_costs_nothing_is_asked_again_after_a_kill(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    with pytest.raises(Killed):
        worker(bus, settings, sandbox, Dying(GOOD, worst=0, cost=0)).make(SIGNATURE, maker="llm")
    listed = Drafting(GOOD, worst=0, cost=0)
    assert worker(bus, settings, sandbox, listed).make(SIGNATURE, maker="llm").ok
    assert len(listed.asked) == 1


def test_whatever_event_is_the_last_before_a_kill_the_attempt_ends_the_same_and_is_paid_once(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    asked = 0
    for _ in range(40):
        listed = Drafting(*[WRONG, GOOD][asked:], cost=1000, worst=0)
        at = worker(bus, settings, sandbox, listed)
        at.toolsmith._write = _once(at)
        try:
            made = at.make(SIGNATURE, maker="llm")
        except Killed:
            asked = len(told(bus, "llm.queried"))
        else:
            break
    assert made.ok
    assert (
        len(told(bus, "crystal.requested"))
        == len(told(bus, "crystal.drafted"))
        == len(told(bus, "crystal.registered"))
        == 1
    )
    assert len(told(bus, "crystal.asked")) == len(told(bus, "llm.queried")) == 2
    stages = [event.stage for event in told(bus, "crystal.checked")]  # type: ignore[attr-defined]
    assert len(stages) == len(set(stages)) == 6
    assert at.past.spending.attempt(made.attempt) == 2000


def _once(at: Crystallizer) -> Callable[[Event, str], bool]:
    """Return a pen that writes one event and then ends the process."""
    left = [1]

    def write(event: Event, name: str) -> bool:
        if not left:
            raise Killed
        left.pop()
        return at.write(event, name)

    return write


def test_the_most_urgent_three_are_tried_and_a_failed_family_waits_for_more(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    listed = Drafting(*[OUTSIDE] * 9)
    at = worker(bus, settings, sandbox, listed)
    done = at.round()
    assert {one.maker for one in done.made} <= {"synthesis", "llm"}
    tried = len(listed.asked)
    assert at.round().made == ()
    assert len(listed.asked) == tried
    record(settings, range(12, 14))
    assert at.round().made == ()  # two more executions are not half as many again


def test_a_tool_that_fails_is_demoted_and_made_anew_from_newer_executions(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    listed = Drafting(GOOD, GOOD.replace("* count", "* count + 1"))
    at = worker(bus, settings, sandbox, listed)
    at.make(SIGNATURE, maker="llm")
    shadowed(at, 1, 8)
    at.round()
    assert at.past.registry.active(SIGNATURE) is not None
    for run in range(3):
        at.write(CrystalInvoked(tool=TOOL, number=1, request=f"f{run}", ok=False, error="ToolError"), f"failed.{run}")
    done = at.round()
    assert [(one.number, one.now) for one in done.moved] == [(1, "demoted")]
    assert at.past.registry.active(SIGNATURE) is None
    record(settings, range(8), wrong=1)  # the world has changed: a fee of one cent
    made = [one for one in at.round().made if one.ok]
    assert [(one.number, one.tool) for one in made] == [(2, TOOL)]
    version = at.past.registry.version(TOOL, 2)
    assert version is not None
    requested = at.past.registry.attempts[version.made.attempt].requested
    assert requested is not None
    assert (requested.by, len(requested.made_from) + len(requested.held_out)) == ("again", 8)


def test_an_active_tool_that_newer_executions_contradict_is_outdated(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(12))
    at = worker(bus, settings, sandbox, Drafting(GOOD))
    at.make(SIGNATURE, maker="llm")
    shadowed(at, 1, 8)
    at.round()
    assert at.outdated() == []
    record(settings, range(6), wrong=5)
    at.catch_up()
    ((career, why),) = at.outdated()
    assert career.number == 1
    assert "does not reproduce 6 of 6" in why.reason
    (moved,) = at.round().moved
    assert (moved.number, moved.now, moved.successes, moved.trials) == (1, "demoted", 0, 6)


def test_a_past_that_was_read_twice_or_by_another_is_the_same(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    record(settings, range(12))
    at = worker(bus, settings, sandbox, Drafting(GOOD))
    at.make(SIGNATURE, maker="llm")
    shadowed(at, 1, 8)
    at.round()
    whole, slow = Past(), at.past
    whole.catch_up(bus)
    assert whole.registry.snapshot() == slow.registry.snapshot()
    assert whole.careers.versions == slow.careers.versions
    assert whole.spending == slow.spending
    assert whole.moves == slow.moves
    assert whole.registry.refusals == 0
    assert whole.catch_up(bus) == 0


def test_two_that_decide_the_same_move_tell_it_once(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    record(settings, range(12))
    one = worker(bus, settings, sandbox, Drafting(GOOD))
    one.make(SIGNATURE, maker="llm")
    shadowed(one, 1, 8)
    other = worker(bus, settings, sandbox)
    assert [moved.now for moved in one.round().moved] == ["active"]
    (moved,) = told(bus, "crystal.moved")
    other.move(moved)  # type: ignore[arg-type]  # it had read the log before the other wrote
    assert len(told(bus, "crystal.moved")) == 1


def test_a_process_that_was_frozen_for_long_does_not_tell_a_move_again(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    config = bus.run(bus.conn.js(f"STREAM.INFO.{LOG}"))["config"]
    bus.run(bus.conn.js(f"STREAM.UPDATE.{LOG}", {**config, "duplicate_window": 100_000_000}))
    frozen, other = worker(bus, settings, sandbox), worker(bus, settings, sandbox)
    moved = CrystalMoved(tool=TOOL, number=1, was="active", now="superseded", reason="a newer one is better")
    assert other.move(moved)
    time.sleep(0.5)  # the broker forgets ids by a timer of its own

    assert not frozen.move(moved)
    assert len(told(bus, "crystal.moved")) == 1


def test_what_nobody_uses_is_retired(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    record(settings, range(12))
    at = worker(bus, settings, sandbox, Drafting(GOOD), life=Life(retire_days=10))
    at.make(SIGNATURE, maker="llm")
    assert at.round(time.time_ns() + 9 * DAY_NS).moved == ()
    (moved,) = at.round(time.time_ns() + 11 * DAY_NS).moved
    assert (moved.now, "unused for 11 days" in moved.reason) == ("retired", True)


def test_what_cannot_be_made_is_said_in_a_line(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    at = worker(bus, settings, sandbox)
    with pytest.raises(NotMade, match="nothing was ever recorded"):
        at.make("g1-0000000000000000")
    record(settings, range(3))
    at.catch_up()
    with pytest.raises(NotMade, match="3 executions may be learned from, and 5 are needed"):
        at.make(SIGNATURE)
    with pytest.raises(NotMade, match="no model is there"):
        at.make(SIGNATURE, maker="llm")
    assert issubclass(DraftInterrupted, NotMade)


def test_what_nobody_foresaw_ends_one_attempt_and_not_the_service(
    bus: Bus, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, range(14))
    at = worker(bus, settings, sandbox)
    with monkeypatch.context() as broken:
        broken.setattr(running, "derive_guards", _raises)
        (made,) = at.round().made
    assert (made.ok, made.stage) == (False, "property")
    assert made.reason == "it could not be judged: unexpected RuntimeError: two lines"
    assert at.past.registry.attempts[made.attempt].failed is not None
    record(settings, range(14, 28))
    with monkeypatch.context() as broken:
        broken.setattr(toolsmith, "drafted_by_synthesis", _raises)
        (made,) = at.round().made
    assert (made.stage, made.reason) == ("draft", "unexpected RuntimeError: two lines")
    assert at.past.registry.attempts[made.attempt].done
    record(settings, range(28, 60))
    with monkeypatch.context() as broken:
        broken.setattr(at.toolsmith, "make", _raises)
        done = at.round()
    assert (done.made, done.put_off) == ((), {SIGNATURE: "unexpected RuntimeError: two lines"})
    (made,) = at.round(time.time_ns() + 2 * PAUSE_NS).made
    assert made.ok
    with monkeypatch.context() as broken:
        broken.setattr(at, "newer", _raises)
        assert at.round().put_off == {SIGNATURE: "unexpected RuntimeError: two lines"}


def test_numbers_and_texts_that_cannot_cross_do_not_keep_a_tool_from_being_made(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    goal = "What is the size of {item} in the store?"
    for at in range(12):
        text = json.dumps({"id": 2**100 + at, "title": "cut \ud83d", "size": at * 7 + 3})
        tools = Capabilities(tools={"store.get": Declared(lambda path, text=text: text, "read")})
        params = {"item": f"item{at}"}
        with executions.execution(
            goal.format(**params), params, capabilities=tools, environment={}, settings=settings
        ) as ex:
            ex.finish(json.loads(ex.call("store.get", path=f"item{at}.json"))["size"], judged_by="assertion")
    assert executions.flush(20)
    (made,) = worker(bus, settings, sandbox).round().made
    assert made.ok, made


def test_a_move_that_another_process_made_first_is_not_made(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    record(settings, range(12))
    at = worker(bus, settings, sandbox, Drafting(GOOD))
    assert at.make(SIGNATURE, maker="llm").ok
    other = worker(bus, settings, sandbox)
    (demoted,) = by_hand(at.past, TOOL, 1, "demoted", "by hand")
    (retired,) = by_hand(other.past, TOOL, 1, "retired", "by hand")
    assert at.move(demoted)
    assert not other.move(retired)
    at.catch_up()
    assert at.past.careers.versions[TOOL, 1].state == "demoted"


def _raises(*_: object, **__: object) -> None:
    raise RuntimeError("two\nlines")
