"""What lifting drafts: the threshold that was planted, nothing where there is nothing, and text that checks."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.producers.loops.build.gather import Sweep
from morphogen.producers.loops.lift import lift, stumps
from morphogen.producers.loops.sweep.errors import SweepError
from morphogen.producers.loops.sweep.space import key_of
from morphogen.schemas import SweepStarted, TrialFinished
from morphogen.schemas.evidence import wilson_lower
from morphogen.schemas.knowledge.format import format_text
from morphogen.schemas.knowledge.program import load_text

AXES: dict[str, list[Any]] = {
    "tile": [8, 16, 32, 64, 128],
    "order": ["ij", "ji", "ik"],
    "fast": [True, False],
    "threads": [1, 2, 4, 8],
}
Effect = Callable[[dict[str, Any]], float]


def measured(seed: int, effect: Effect, trials: int = 60, noise: float = 0.1) -> list[TrialFinished]:
    """Return trials of random configurations whose metric is 10 times `effect`, three noisy repeats each."""
    chance = random.Random(seed)
    found = []
    for number in range(trials):
        config = {name: chance.choice(values) for name, values in AXES.items()}
        values = [10 * effect(config) * chance.gauss(1, noise) for _ in range(3)]
        found.append(
            TrialFinished(
                sweep="Tune", number=number, key=f"{key_of(config)}{number}", config=config, state="measured",
                value=sorted(values)[1], values=values, host="here",
            )
        )  # fmt: skip
    return found


def swept(trials: list[TrialFinished], **more: Any) -> Sweep:
    started = {"sweep": "Tune", "parameters": AXES, "sampler": "random", "metric": "Performance.speed", **more}
    return Sweep(SweepStarted(objective=started.pop("objective", "maximize"), **started), tuple(trials), (), None)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    cut=st.sampled_from(AXES["tile"][1:]),
    gain=st.floats(1.6, 4),
    below=st.booleans(),
    maximize=st.booleans(),
)
def test_a_planted_threshold_is_found(seed: int, cut: int, gain: float, below: bool, maximize: bool) -> None:
    good = gain if maximize else 1 / gain
    trials = measured(seed, lambda c: good if (c["tile"] < cut) == below else 1.0, trials=100)

    found = stumps(trials, maximize=maximize, deals=499)

    assert (found[0].cut.parameter, found[0].cut.op, found[0].cut.value) == ("tile", "<" if below else ">=", cut)
    assert found[0].bound > 0.55
    assert found[0].p <= 0.01


def test_a_planted_value_is_found() -> None:
    found = stumps(measured(1, lambda c: 2.0 if c["order"] == "ji" else 1.0), maximize=True)

    assert [(one.cut.parameter, one.cut.op, one.cut.value) for one in found[:1]] == [("order", "==", "ji")]


def test_nothing_is_drafted_from_noise_more_often_than_promised() -> None:
    drafted = sum(bool(stumps(measured(seed, lambda c: 1.0), maximize=True, deals=299)) for seed in range(200))

    assert drafted <= 17  # 5% of 200, and two standard deviations


def test_an_effect_below_the_noise_of_the_repeats_is_not_drafted() -> None:
    found = stumps(measured(3, lambda c: 1.01 if c["fast"] else 1.0, trials=400, noise=0.001), maximize=True)

    assert found == []


def test_what_makes_configurations_fail_is_found() -> None:
    trials = [
        one
        if one.config["threads"] < 8
        else TrialFinished(
            sweep="Tune", number=one.number, key=one.key, config=one.config, state="failed", reason="too many"
        )
        for one in measured(5, lambda c: 1.0)
    ]

    (found,) = stumps(trials, maximize=True)

    assert (found.kind, found.cut.parameter, found.cut.op, found.cut.value) == ("fails", "threads", ">=", 8)
    assert (found.here, found.there) == (1.0, 0.0)


def test_the_draft_checks_is_formatted_and_says_where_it_comes_from() -> None:
    trials = measured(1, lambda c: (2.0 if c["tile"] >= 32 else 1.0) * (1.5 if c["order"] != "ij" else 1.0))

    lifted = lift({"night": [swept(trials)]}, format_text=format_text)

    program = load_text(lifted.text)
    assert format_text(lifted.text) == lifted.text
    assert "// run night, sweep Tune: 60 trials" in lifted.text
    assert "on here" in lifted.text
    assert "TuneLifted.tile_at_least_32" in program.facts
    rule = program.rules["TuneLifted.Prefer tile >= 32"].rule
    assert [one.key for one in rule.parameters] == ["tile"]
    assert "parameter tile: [32, 64, 128]" in lifted.text


def test_a_draft_from_noise_says_that_there_is_nothing() -> None:
    lifted = lift({"night": [swept(measured(2, lambda c: 1.0))]})

    assert lifted.stumps == ()
    assert "No parameter makes a difference" in lifted.text
    assert load_text(lifted.text).facts == {}


def test_names_and_values_that_are_no_words_are_still_a_module() -> None:
    odd = ['a "b"', "{{x}}", "back\\slash"]
    chance = random.Random(1)
    trials = [
        TrialFinished(
            sweep="Tune", number=number, key=str(number), config={"kind": kind, "x": x}, state="measured",
            value=(5.0 if kind == odd[number % 3] == odd[0] else 1.0) * (2 if x > -0.5 else 1) + chance.random() / 10,
        )
        for number, (kind, x) in enumerate((odd[n % 3], [-1.5, 0.25][n % 2]) for n in range(60))
    ]  # fmt: skip

    lifted = lift({'run "1"\n': [swept(trials, parameters={"kind": odd, "x": [-1.5, 0.25]})]}, format_text=format_text)

    assert len(lifted.stumps) == 2
    assert len(load_text(lifted.text).rules) == 2


def test_sweeps_of_different_questions_are_not_lifted_together() -> None:
    trials = measured(1, lambda c: 1.0)

    with pytest.raises(SweepError, match="lift them apart"):
        lift({"a": [swept(trials)], "b": [swept(trials, objective="minimize")]})
    with pytest.raises(SweepError, match="no sweep with trials in nothing"):
        lift({"nothing": []})


@given(total=st.integers(1, 200), share=st.floats(0, 1))
def test_a_bound_lies_below_its_share(total: int, share: float) -> None:
    successes = round(share * total)

    assert 0 <= wilson_lower(successes, total) <= successes / total + 1e-9
