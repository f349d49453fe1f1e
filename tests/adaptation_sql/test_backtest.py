"""Another policy over recorded runs: exact where it is the same policy, honest where it is another one."""

import asyncio
import json
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import morphogen
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.cli.app import run as command
from morphogen.consumers.policy import Limits, Observation, Outcome, Policy, Proposal, load_policy
from morphogen.consumers.policy.registry import save_policy
from morphogen.replay.backtest import (
    Backtest,
    Estimate,
    Rerun,
    again,
    as_json,
    backtest,
    compare,
    described,
    estimate,
    examine,
    lines,
)
from morphogen.replay.backtest.evidence import SAME_SHAPE, SAME_SITE
from morphogen.replay.backtest.interval import t_quantile
from morphogen.replay.backtest.recorded import recorded_of
from morphogen.schemas import Action, AdaptationStarted

from .paper import HELPS, Paper

PLAN = [[4, "fc1", "mlp16"], [12, "fc2", "norm"]]
BUILT_IN: dict[str, dict[str, Any]] = {
    "none": {},
    "random": {},
    "fixed": {"plan": PLAN},
    "heuristic": {},
    "bandit": {},
}


def made(name: str, seed: int = 0) -> Policy:
    return load_policy(name, seed=seed, **BUILT_IN[name])


@cache
def ran(policy: str, seed: int = 0, **more: Any) -> Paper:
    """Return a run that was run to its end; who asks for the same again gets the very same, and only looks."""
    return Paper(made(policy, seed), f"{policy}-{seed}", seed, **more).run()


def gone_over(papers: Iterable[Paper], policy: Any, **options: Any) -> Backtest:
    examined = [examine(again(one.recorded(), load_policy(policy, seed=one.seed, **options))) for one in papers]
    return compare(examined, policy=str(policy))


class Eager:
    """Germinates the first thing that is legal, and does nothing else."""

    name = "eager"
    version = None

    def decide(self, observation: Observation) -> Proposal:
        """Germinate."""
        index = observation.index("germinate")
        return Proposal(0 if index is None else index, reason="eager")

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""


class Failing(Eager):
    """A policy of somebody who made a mistake."""

    name = "failing"

    def decide(self, observation: Observation) -> Proposal:
        """Fail after the fifth epoch."""
        if observation.epoch > 5:
            raise KeyError("val_loss")
        return Proposal(999)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_policy_over_its_own_run_decides_everything_again_to_the_bit(name: str) -> None:
    paper = ran(name, 3)

    rerun = again(paper.recorded(), made(name, 3))

    assert len(rerun.moments) == 30
    assert all(moment.rebuilt and moment.exact and moment.same for moment in rerun.moments)
    assert not any(moment.differs for moment in rerun.moments)
    assert rerun.state.slots == paper.decider.state.slots
    assert rerun.state.epochs == paper.decider.state.epochs
    if name != "none":
        assert any(moment.chosen.acts for moment in rerun.moments)


@given(seed=st.integers(0, 2**31))
@examples(max_examples=15)
def test_the_order_in_which_events_arrive_changes_nothing(seed: int) -> None:
    paper = ran("bandit", 1)
    told = list(paper.told())
    random.Random(seed).shuffle(told)

    (recorded,) = recorded_of(told)
    rerun = again(recorded, made("bandit", 1))

    assert all(moment.rebuilt and moment.exact for moment in rerun.moments)


def test_a_run_that_was_tampered_with_is_noticed() -> None:
    told = [
        (key, one._replace(event=type(one.event)(**{**_fields(one.event), "val_loss": 2.5})))
        if one.event.type == "adaptation.epoch" and _fields(one.event)["epoch"] == 10
        else (key, one)
        for key, one in ran("heuristic").told()
    ]

    rerun = again(recorded_of(told)[0], made("heuristic"))

    assert [moment.rebuilt for moment in rerun.moments[:10]] == [True] * 10
    assert not rerun.moments[10].rebuilt
    assert rerun.moments[10].same, "the policy is asked with what the log says was shown"


def test_another_policy_differs_where_it_does_and_first_when_it_does() -> None:
    papers = [ran("none", seed) for seed in range(3)]

    found = gone_over(papers, "heuristic")

    assert [score.first for score in found.scores] == [3, 3, 3]
    assert found.groups[0].would.startswith("germinate mlp16 at fc1")
    assert found.groups[0].instead_of == "wait"
    assert not found.groups[0].suggests.known  # type: ignore[union-attr]
    assert found.recorded == Estimate(runs=0, values=0)
    assert any("unknown (never seen)" in line for line in lines(found))


def test_outcomes_of_the_same_action_elsewhere_say_what_it_is_worth() -> None:
    chance = [load_policy("heuristic", seed=seed, choose="random") for seed in range(8)]
    papers = [Paper(policy, f"chance-{seed}", seed, epochs=40).run() for seed, policy in enumerate(chance)]
    papers.append(ran("none", 100))

    found = gone_over(papers, Eager)

    last = [one for one in found.differences if one.moment.run == "none-100"]
    assert last
    assert last[0].moment.chosen.action.blueprint == "norm"
    assert last[0].by == SAME_SITE
    suggests = last[0].suggests
    assert suggests is not None
    assert suggests.mean is not None
    assert suggests.runs >= 3
    assert abs(suggests.mean - HELPS["fc1|norm"]) < 0.03
    assert suggests.low is not None
    assert suggests.high is not None
    assert suggests.low <= suggests.mean <= suggests.high
    assert found.weighted
    assert found.agreed.values <= found.recorded.values


def test_another_host_of_the_same_shapes_supports_only_by_shape() -> None:
    papers = [ran("fixed", seed, host=9_000) for seed in range(4)] + [ran("none", 7)]

    found = gone_over(papers, "fixed", plan=PLAN)

    (one, *_) = [one for one in found.differences if one.moment.run == "none-7"]
    assert one.by == SAME_SHAPE
    assert one.suggests is not None
    assert one.suggests.known


def test_two_runs_are_no_support() -> None:
    found = gone_over([ran("fixed", 0), ran("fixed", 1), ran("none", 7)], "fixed", plan=PLAN)

    (one, *_) = [one for one in found.differences if one.moment.run == "none-7"]
    assert one.suggests is not None
    assert not one.suggests.known
    assert str(one.suggests) == "unknown (2 in 2 runs: too few)"


def test_a_policy_that_fails_is_counted_and_never_stops_the_backtest() -> None:
    found = gone_over([ran("heuristic")], Failing)

    assert found.scores[0].faults == 30
    assert found.fault is not None
    assert found.fault.startswith("policy chose action 999 of ")
    assert any("the policy failed 30 times" in line for line in lines(found))


def test_a_dry_run_of_the_log_counts_for_its_own_action() -> None:
    paper = ran("heuristic", dry_run=lambda action: "the shadow diverged" if action.slot == "fc1#0" else None)
    assert {one.verdict.blocked_by for one in paper.decided} >= {None, "dry_run"}

    rerun = again(paper.recorded(), made("heuristic"))

    assert all(moment.exact for moment in rerun.moments)
    assert any(moment.chosen.blocked_by == "dry_run" for moment in rerun.moments)
    assert any(described(moment.chosen) == "wait (dry_run said no)" for moment in rerun.moments)


def test_without_outcomes_a_learner_does_not_learn() -> None:
    paper = ran("bandit", 2, epochs=60)

    told, untold = (again(paper.recorded(), made("bandit", 2), learn=learn) for learn in (True, False))

    assert all(moment.exact for moment in told.moments)
    assert not all(moment.exact for moment in untold.moments)


def test_a_log_that_breaks_off_in_the_middle_of_a_decision_is_gone_over_all_the_same() -> None:
    told = list(ran("heuristic").told())
    for cut in range(1, len(told), 7):
        rerun: Rerun = again(recorded_of(told[:cut])[0], made("heuristic"))
        assert all(moment.exact for moment in rerun.moments if moment.recorded is not None and moment.recorded.approved)


def test_a_backtest_is_one_json_document() -> None:
    found = gone_over([ran("random", 1), ran("none", 2)], "heuristic")

    document = json.loads(as_json(found))

    assert document["policy"] == "heuristic"
    assert document["decisions"] == 60
    assert document["exact"] is False
    assert [score["run"] for score in document["scores"]] == ["random-1", "none-2"]
    assert document["differences"][0]["moment"]["chosen"]["action"]["op"]


def test_quantiles_of_t_are_those_of_the_tables() -> None:
    table = {1: 12.7062047, 2: 4.30265273, 3: 3.18244631, 4: 2.77644511, 7: 2.36462425, 19: 2.09302405, 200: 1.97189622}

    assert {n: round(t_quantile(0.975, n), 8) for n in table} == {
        n: pytest.approx(q, abs=1e-7) for n, q in table.items()
    }
    assert t_quantile(0.5, 5) == pytest.approx(0, abs=1e-12)
    assert t_quantile(0.995, 1) == pytest.approx(63.6567412)
    with pytest.raises(ValueError, match="a quantile of t needs"):
        t_quantile(0.4, 3)


def test_one_value_a_run_gives_the_usual_interval() -> None:
    values = [0.2, 0.5, 0.1, -0.3, 0.4]

    found = estimate((str(n), v) for n, v in enumerate(values))

    half = 2.77644511 * statistics.stdev(values) / math.sqrt(5)
    assert found.low == pytest.approx(0.18 - half)
    assert found.high == pytest.approx(0.18 + half)
    assert found.helped == pytest.approx(0.8)


def test_a_run_that_says_the_same_thing_often_counts_once_in_the_interval() -> None:
    few = estimate([("a", 1.0), ("b", 0.0), ("c", 0.5)])
    many = estimate([("a", 1.0)] * 50 + [("b", 0.0)] * 50 + [("c", 0.5)] * 50)

    assert few.low is not None
    assert many.low == pytest.approx(few.low)


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.tuples(st.floats(0.1, 10), st.floats(-5, 5)), max_size=4), max_size=6
    )
)
def test_an_interval_holds_its_mean_or_is_unknown(values: dict[str, list[tuple[float, float]]]) -> None:
    found = estimate(values)

    assert found.known == (sum(1 for pairs in values.values() if pairs) >= 3)
    if found.mean is not None and found.low is not None and found.high is not None and found.helped is not None:
        assert found.low <= found.mean <= found.high
        assert min(y for pairs in values.values() for _, y in pairs) - 1e-9 <= found.mean
        assert -1e-9 <= found.helped <= 1 + 1e-9


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chance, covered = random.Random(5), 0
    for _ in range(400):
        found = estimate(
            [
                (str(run), own + chance.gauss(0, 0.5))
                for run in range(8)
                for own in [chance.gauss(1, 1)]
                for _ in range(3)
            ]
        )
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1 <= found.high

    assert 0.9 <= covered / 400 <= 0.99


def record(papers: Sequence[Paper]) -> None:
    """Write runs on paper into the log of this test, as training jobs would."""
    for paper in papers:
        with morphogen.record(paper.name) as run:
            for event, step in paper.events:
                run.event(event, step=step)


def test_the_command_goes_over_what_is_in_the_log(
    settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record([ran("bandit", 1), ran("random", 2), ran("none", 3)])
    (tmp_path / "a_policy_of_mine.py").write_text(
        "from morphogen.consumers.policy import Proposal\n"
        "class Mine:\n"
        "    name, version = 'mine', None\n"
        "    def __init__(self, eager=False): self.eager = eager\n"
        "    def decide(self, observation):\n"
        "        return Proposal((observation.index('germinate') or 0) if self.eager else 0)\n"
        "    def learn(self, outcome): pass\n"
    )
    monkeypatch.chdir(tmp_path)

    assert command(["backtest", "bandit", "--runs", "bandit-*,nobody"]) == 0
    out = capsys.readouterr().out
    assert "30 decisions" in out
    assert "rebuilt from the log: 30 of 30" in out
    assert "the same to the bit in all that a policy says: 30" in out
    assert "nothing would have been done differently" in out

    assert command(["backtest", "a_policy_of_mine:Mine", "--option", "eager=true", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [score["rebuilt"] for score in document["scores"]] == [30, 30, 30]
    assert sum(score["differences"] for score in document["scores"]) > 0

    assert command(["backtest", "bandit", "--runs", "nobody"]) == 1
    assert "no run that could grow is named 'nobody': there are bandit-1, random-2, none-3" in capsys.readouterr().err
    assert command(["backtest", "not-there"]) == 1
    assert "there is no policy 'not-there'" in capsys.readouterr().err


def test_a_checkpoint_and_a_policy_itself_can_be_tested_and_a_broken_run_stops_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    learned = made("bandit", 1)
    record([Paper(learned, "school", 1).run(), ran("none", 3)])
    save_policy(learned, tmp_path / "bandit.safetensors")
    with morphogen.record("broken") as run:
        run.event(AdaptationStarted(sites=[], policy="x", config={"limits": {"cooldown": "soon"}}))
    before = dict(learned.arms)  # type: ignore[attr-defined]

    assert command(["backtest", str(tmp_path / "bandit.safetensors"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["version"]) == 64
    assert document["skipped"] == [{"run": "broken", "reason": document["skipped"][0]["reason"]}]
    assert "'limits' does not fit" in document["skipped"][0]["reason"]
    assert [score["rebuilt"] for score in document["scores"]] == [30, 30]

    async def main() -> Backtest:
        conn = await connect(settings, name="test")
        try:
            return await backtest(conn, settings, learned, ["none-*"])
        finally:
            await conn.close()

    assert asyncio.run(main()).decisions == 30
    assert learned.arms == before  # type: ignore[attr-defined]


def test_a_log_without_growth_says_so(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with morphogen.record("plain") as run:
        run.log(loss=1.0)

    assert command(["backtest", "bandit"]) == 1
    assert "no run in the log could grow" in capsys.readouterr().err


def test_a_name_among_several_that_no_run_has_is_named(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    record([ran("bandit", 1)])

    assert command(["backtest", "random", "--runs", "bandit-1,nope"]) == 0
    assert "nope could not be gone over: no run that could grow is named so" in capsys.readouterr().out
    assert command(["backtest", "random", "--runs", "bandit-1,band*"]) == 0
    assert "could not be gone over" not in capsys.readouterr().out
    for empty in ("", ","):  # such as a variable of a script that is not set
        assert command(["backtest", "random", "--runs", empty]) == 1
        assert "no run that could grow is named" in capsys.readouterr().err


def test_a_backtest_changes_nothing_in_the_log(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    record([ran("heuristic", 1)])
    count = "SELECT count(*) FROM events"
    before = morphogen.query(count, wait=True).rows()

    assert command(["backtest", "random", "--all"]) == 0
    assert morphogen.query(count, wait=True).rows() == before
    assert "each of them:" in capsys.readouterr().out


def test_limits_are_those_that_the_run_had() -> None:
    paper = ran("none", limits=Limits(max_active=1, cooldown=1, max_params=10))

    found = gone_over([paper], "fixed", plan=[[4, "fc1", "mlp16"]])

    assert found.differences == []


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_an_action_is_described_by_what_would_be_done() -> None:
    rerun = again(ran("heuristic").recorded(), made("heuristic"))

    told = [described(moment.chosen) for moment in rerun.moments]
    assert told[3:6] == ["germinate mlp16 at fc1", "advance mlp16 at fc1", "advance mlp16 at fc1"]
    assert described(None) == "nothing (no proposal in the log)"
    assert math.isfinite(len(str(Action(op="wait"))))


STRANGE = """
from morphogen.consumers.policy import Proposal

class Strange:
    name, version = "strange", None
    def __init__(self, how="prints"): self.how = how
    def decide(self, observation):
        print("what a policy prints")
        if self.how == "leaves": raise GeneratorExit
        return Proposal(0, reason="half a pair: \\ud800")
    def learn(self, outcome):
        if self.how == "exits": raise SystemExit(3)
"""


def test_a_policy_that_prints_exits_or_leaves_neither_ends_nor_stops_the_command(
    settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record([ran("bandit", 1)])
    (tmp_path / "a_strange_policy.py").write_text(STRANGE)
    monkeypatch.chdir(tmp_path)

    assert command(["backtest", "a_strange_policy:Strange", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["decisions"] == 30
    assert "what a policy prints" in printed.err

    assert command(["backtest", "a_strange_policy:Strange", "--option", "how=exits"]) == 0
    assert "policy did not learn: SystemExit" in capsys.readouterr().out

    assert command(["backtest", "a_strange_policy:Strange", "--option", "how=leaves", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["exact"] is False, "nothing was gone over"
    assert document["skipped"] == [{"run": "bandit-1", "reason": "RuntimeError: the policy raised GeneratorExit"}]


@pytest.mark.parametrize("options", [["--seed", "-1"], ["--option", "seed=3"]])
def test_a_seed_that_is_none_or_given_twice_is_refused_in_one_line(
    settings: Settings, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert command(["backtest", "random", *options]) == 2
    assert "seed" in capsys.readouterr().err
