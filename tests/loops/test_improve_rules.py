"""The rules of the improver, on programs and figures made by hand: nothing runs here."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers.loops.improve.accept import accepts, read_policy
from morphogen.producers.loops.improve.dead import dead_steps
from morphogen.producers.loops.improve.edits import Edit, apply_edits, remove, remove_items, reorder, unified_diff
from morphogen.producers.loops.improve.errors import ImproveError
from morphogen.producers.loops.improve.history import RecordedRun, RecordedSweep
from morphogen.producers.loops.improve.narrow import kept_axes, narrow
from morphogen.producers.loops.improve.order import best_order, expected_seconds, reordered_steps
from morphogen.producers.loops.improve.statistics import StepFigures
from morphogen.producers.loops.improve.support import bound_of, noise_of
from morphogen.schemas import LoopStarted, SweepStarted, TrialFinished
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.tools import TOOLS
from morphogen.schemas.knowledge.tree import ListExpr, Step, Task


def task(text: str) -> Task:
    parsed = parse(text)
    assert parsed.diagnostics == ()
    (found,) = parsed.module.tasks
    return found


def ran(*names: str, seconds: float = 1.0) -> dict[str, StepFigures]:
    return {name: StepFigures(4, 0, (seconds,) * 4) for name in names}


# Text ------------------------------------------------------------------------------------------------------------

PROGRAM = """task Check {
  // about one
  // and more about one
  step one: tool.read { path: "1" output_var: a }  // behind one

  # about two
  step two: tool.read { path: "2" output_var: b }
  step three: tool.read { path: "3", output_var: c };
  success: a == b
}
"""


def test_a_removed_step_takes_its_line_along_and_leaves_every_comment() -> None:
    steps = task(PROGRAM).steps

    without_two = apply_edits(PROGRAM, [remove(PROGRAM, steps[1])])
    without_three = apply_edits(PROGRAM, [remove(PROGRAM, steps[2])])
    without_one = apply_edits(PROGRAM, [remove(PROGRAM, steps[0])])

    assert without_two == PROGRAM.replace('  step two: tool.read { path: "2" output_var: b }\n', "")
    assert without_three == PROGRAM.replace('  step three: tool.read { path: "3", output_var: c };\n', "")
    assert "// behind one" in without_one
    assert [step.name for step in task(without_one).steps] == ["two", "three"]


def test_steps_on_one_line_can_be_removed_one_by_one() -> None:
    text = 'task T { step a: tool.read { path: "1" output_var: x }; step b: tool.read { path: "2" output_var: y } success: true }'

    assert apply_edits(text, [remove(text, task(text).steps[0])]) == (
        'task T { step b: tool.read { path: "2" output_var: y } success: true }'
    )


def test_steps_change_places_with_their_own_comments() -> None:
    one, two, three = task(PROGRAM).steps

    changed = apply_edits(PROGRAM, reorder(PROGRAM, (one, two, three), (three, two, one)))

    assert [step.name for step in task(changed).steps] == ["three", "two", "one"]
    assert changed.index("// about one") < changed.index("// and more") < changed.index("step one")
    assert changed.index("output_var: a }  // behind one") > 0
    assert changed.index("# about two") < changed.index("step two") < changed.index("// about one")


def test_items_leave_a_list_with_their_commas_and_without_the_comments_between() -> None:
    text = "system S { tuning_space { a: [1, 2 /* two */, 3,\n 4 // four\n , 5] } }"
    space = parse(text).module.systems[0].spaces[0].entries[0].value
    assert isinstance(space, ListExpr)

    for gone in ([0], [1], [4], [0, 1], [3, 4], [0, 2, 4], [1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4]):
        changed = apply_edits(text, remove_items(text, space.items, [space.items[index] for index in gone]))
        left = parse(changed)
        value = left.module.systems[0].spaces[0].entries[0].value
        assert left.diagnostics == ()
        assert isinstance(value, ListExpr)
        assert [one.value for one in value.items] == [  # type: ignore[union-attr]
            number for index, number in enumerate([1, 2, 3, 4, 5]) if index not in gone
        ]
        assert "/* two */" in changed
        assert "// four" in changed


def test_two_edits_of_one_place_are_refused() -> None:
    with pytest.raises(ImproveError, match="meet at the same place"):
        apply_edits("abcdef", [Edit(0, 3, ""), Edit(2, 4, "")])


@given(
    st.permutations(range(4)),
    st.lists(st.sampled_from(["", "\n", "  // a\n", "  # b\n", "  // c\n  // d\n"]), min_size=4, max_size=4),
)
def test_any_order_of_steps_is_made_of_the_same_lines(order: list[int], between: list[str]) -> None:
    steps = [
        f'{gap}  step s{number}: tool.read {{ path: "{number}" output_var: v{number} }}\n'
        for number, gap in enumerate(between)
    ]
    text = f"task T {{\n{''.join(steps)}  success: true\n}}\n"
    found = task(text).steps

    changed = apply_edits(text, reorder(text, found, [found[index] for index in order]))

    assert [step.name for step in task(changed).steps] == [f"s{index}" for index in order]
    assert sorted(changed.splitlines()) == sorted(text.splitlines())


def test_the_diff_is_one_that_tools_can_apply() -> None:
    assert unified_diff("a\nb\n", "a\nc\n", "x.mk").splitlines()[:3] == ["--- a/x.mk", "+++ b/x.mk", "@@ -1,2 +1,2 @@"]
    assert "\\ No newline at end of file" in unified_diff("a", "b", "x.mk")
    assert unified_diff("a\n", "a\n", "x.mk") == ""


# Dead steps --------------------------------------------------------------------------------------------------------


def dead(text: str, figures: Mapping[str, StepFigures] | None = None) -> list[str]:
    parsed = parse(text)
    assert parsed.diagnostics == ()
    loop = (*parsed.module.tasks, *(one for system in parsed.module.systems for one in system.agent_loops))[0]
    seen = ran(*(step.name for step in loop.steps)) if figures is None else figures
    return [str(one.evidence["step"]) for one in dead_steps(text, parsed.module, loop, seen, TOOLS)]


def test_steps_that_only_look_and_that_nobody_reads_are_dead_and_so_is_what_only_they_read() -> None:
    text = """task T {
      step a: tool.read { path: "1" output_var: one }
      step b { two = one + "x" }
      step c: llm.query { prompt: "{{two}}" output_var: three }
      step d: tool.read { path: "4" output_var: four }
      success: four == "x"
    }"""

    assert dead(text) == ["c", "b", "a"]


@pytest.mark.parametrize(
    "step",
    [
        'step a: tool.run { cmd: "true" output_var: x }',
        'step a: tool.write { path: "x" content: "y" }',
        'step a: tool.read { path: "x" output_var: used }',
        'step a: tool.read { path: "x" } -> emit Perf',
        "step a { emit Perf { x: 1 } }",
        "step a { return }",
        'step a { if 1 > 2 { tool.run { cmd: "true" } } }',
        "step a { best = 3 }",
    ],
)
def test_what_acts_emits_returns_sets_a_state_or_is_read_is_not_dead(step: str) -> None:
    text = (
        "system S { model { state best: int = 0 } trace_schema { variant T { case Perf { x: int } } } agent_loop L { "
        f'{step} step b: tool.run {{ cmd: "echo {{{{used}}}}" }} }} }}'
    )

    assert dead(text) == []


def test_a_step_that_ever_failed_is_a_check_and_one_that_never_ran_is_unknown() -> None:
    text = 'task T { step a: tool.read { path: "1" output_var: x } step b: tool.run { cmd: "true" } }'

    assert dead(text) == ["a"]
    assert dead(text, {"a": StepFigures(4, 1, (1.0,) * 4)}) == []
    assert dead(text, {}) == []


def test_a_program_is_never_left_without_steps() -> None:
    assert dead('task T { step a: tool.read { path: "1" output_var: x } }') == []


# Order -------------------------------------------------------------------------------------------------------------

CHECKS = """task T {
  step slow: tool.read { path: "1" output_var: a }
  step gate: tool.read { path: "2" output_var: b }
  step use: tool.read { path: "{{a}}" output_var: c }
  step act: tool.run { cmd: "echo {{a}} {{b}} {{c}}" }
  step late: tool.read { path: "3" output_var: d }
  success: d == "x"
}"""


def test_what_fails_fast_and_often_comes_first_and_no_step_before_one_it_needs() -> None:
    figures = {
        "slow": StepFigures(10, 0, (5.0,)),
        "gate": StepFigures(10, 5, (0.1,)),
        "use": StepFigures(5, 4, (0.1,)),
        "act": StepFigures(1, 0, (9.0,)),
        "late": StepFigures(1, 1, (0.001,)),
    }

    (proposal,) = reordered_steps(CHECKS, task(CHECKS), figures, TOOLS)

    changed = task(apply_edits(CHECKS, proposal.edits))
    assert [step.name for step in changed.steps] == ["gate", "slow", "use", "act", "late"]
    assert proposal.evidence["expected_seconds_after"] == pytest.approx(0.1 + 0.5 * (5.0 + 0.1))


def test_nothing_moves_without_failures_or_past_what_acts() -> None:
    assert reordered_steps(CHECKS, task(CHECKS), ran("slow", "gate", "use", "act", "late"), TOOLS) == []
    assert reordered_steps(CHECKS, task(CHECKS), ran("slow", "gate") | {"late": StepFigures(2, 2, (0.1,))}, TOOLS) == []


def test_a_failure_that_the_loop_goes_on_after_stops_nothing() -> None:
    text = CHECKS.replace('path: "2"', 'path: "2" on_failure: continue')

    assert (
        reordered_steps(text, task(text), {"slow": StepFigures(9, 0, (5.0,)), "gate": StepFigures(9, 9, (0.1,))}, TOOLS)
        == []
    )


@given(st.lists(st.tuples(st.floats(0.01, 10), st.integers(0, 10)), min_size=2, max_size=5))
def test_no_order_of_independent_checks_is_expected_to_be_faster(seen: list[tuple[float, int]]) -> None:
    from itertools import permutations

    steps = [Step(f"s{number}", ()) for number in range(len(seen))]
    figures = {f"s{number}": StepFigures(10, failed, (seconds,)) for number, (seconds, failed) in enumerate(seen)}

    best = expected_seconds(best_order(steps, figures), figures)

    assert best <= min(expected_seconds(list(order), figures) for order in permutations(steps)) + 1e-9


# Spaces ------------------------------------------------------------------------------------------------------------

SWEEP = """system S {{
  trace_schema {{ variant T {{ case Perf {{ speed: float }} }} }}
  engineering_loop Tune {{
    parameter tile: {tile}
    parameter fast: [true, false]
    measure {{ cmd: "bench {{{{tile}}}} {{{{fast}}}}" metric: Perf.speed objective: maximize }}
  }}
}}"""


def sweep(trials: list[tuple[dict[str, Any], list[float] | None]], objective: str = "maximize") -> RecordedRun:
    """Return a run with one sweep; a trial without values failed."""
    names = dict.fromkeys(trials[0][0])
    started = SweepStarted(sweep="Tune", parameters=names, sampler="grid", metric="Perf.speed", objective=objective)
    found = [
        TrialFinished(
            sweep="Tune",
            number=number,
            key=str(number),
            config=config,
            state="failed" if values is None else "measured",
            value=None if values is None else statistics.median(values),
            values=values or [],
            seconds=2.0,
        )
        for number, (config, values) in enumerate(trials)
    ]
    loop = LoopStarted(loop="Tune", kind="engineering", program="p.mk", sha256="x")
    return RecordedRun(
        run="r", loop="Tune", kind="engineering", sha256="x", live=True, status="done", started=loop,
        sweeps={"Tune": RecordedSweep(started=started, trials=found)},
    )  # fmt: skip


def narrowed(tile: str, run: RecordedRun) -> tuple[str, list[Any]]:
    """Return the space of `tile` after the proposals, and their evidence."""
    text = SWEEP.format(tile=tile)
    parsed = parse(text)
    assert parsed.diagnostics == ()
    (system,) = parsed.module.systems
    made = narrow(text, system, system.engineering_loops[0], [run])
    changed = apply_edits(text, [edit for one in made for edit in one.edits])
    assert parse(changed).diagnostics == ()
    line = next(line for line in changed.splitlines() if "parameter tile" in line)
    return line.split(": ", 1)[1], [one for proposal in made for one in proposal.evidence["values"]]


def grid(
    speeds: dict[Any, float], noise: float = 0.01, repeats: int = 3
) -> list[tuple[dict[str, Any], list[float] | None]]:
    wave = [0.0, 1.0, -1.0]
    return [
        (
            {"tile": tile, "fast": fast},
            [speed * (1.0 if fast else 0.97) * (1 + noise * wave[turn % 3]) for turn in range(repeats)],
        )
        for tile, speed in speeds.items()
        for fast in (True, False)
    ]


def test_values_that_no_good_configuration_had_leave_the_space() -> None:
    text, values = narrowed("[8, 16 /* a line */, 32, 64]", sweep(grid({8: 10, 16: 50, 32: 100, 64: 98})))

    assert text == "[ /* a line */ 32, 64]"
    assert {one["value"]: one["dropped"] for one in values} == {8: True, 16: True, 32: False, 64: False}
    assert {one["value"]: one["measured"] for one in values} == dict.fromkeys((8, 16, 32, 64), 2)


def test_what_is_within_the_noise_stays() -> None:
    clear, _ = narrowed("[1, 2]", sweep(grid({1: 80, 2: 100}, noise=0.01)))
    blurred, _ = narrowed("[1, 2]", sweep(grid({1: 80, 2: 100}, noise=0.10)))

    assert clear == "[2]"
    assert blurred == "[1, 2]"


def test_too_little_support_drops_nothing() -> None:
    once = [(config, values[:1]) for config, values in grid({1: 10, 2: 100}) if values and config["fast"]]

    assert narrowed("[1, 2]", sweep([(config, values) for config, values in once]))[0] == "[1, 2]"


def test_a_value_that_always_failed_goes_and_one_that_once_won_stays() -> None:
    trials = grid({2: 100.0, 3: 99.0})
    trials += [({"tile": 1, "fast": fast}, None) for fast in (True, False)]

    assert narrowed("[1, 2, 3]", sweep(trials))[0] == "[2, 3]"


def test_smaller_is_better_where_the_loop_minimizes() -> None:
    assert narrowed("[1, 2]", sweep(grid({1: 10, 2: 100}), objective="minimize"))[0] == "[1]"


def test_the_ends_of_a_range_are_cut_a_step_beyond_what_was_good() -> None:
    stepped = grid({tile: 100 - abs(tile - 48) for tile in range(0, 129, 8)})

    text, _ = narrowed("range[0, 128, 8]", sweep(stepped))

    low, high = (float(part) for part in text.removeprefix("range[").removesuffix(", 8]").split(", "))
    assert 24 <= low < 48 < high <= 72
    assert low % 8 == high % 8 == 0


def test_a_continuous_range_is_cut_half_way_to_the_nearest_bad_value() -> None:
    seen = grid({0.1: 20, 0.2: 30, 0.3: 40, 0.5: 100, 0.6: 99, 0.8: 40, 0.9: 30, 0.95: 20})

    text, _ = narrowed("range[0.0, 1.0]", sweep(seen))

    assert text == "range[0.4, 0.7]"


def test_the_space_of_the_tuning_section_is_narrowed_where_one_loop_uses_it() -> None:
    text = """system S {
      tuning_space { tile: [1, 2], fast: [true, false] }
      trace_schema { variant T { case Perf { speed: float } } }
      engineering_loop Tune { measure { cmd: "bench {{tile}} {{fast}}" metric: Perf.speed objective: maximize } }
    }"""
    (system,) = parse(text).module.systems

    (proposal,) = narrow(text, system, system.engineering_loops[0], [sweep(grid({1: 10, 2: 100}))])

    changed = apply_edits(text, proposal.edits)
    assert "tile: [2]" in changed
    kept = {one.parameter: one for one in kept_axes(parse(changed).module)}
    assert kept["tile"].holds({"tile": 2})
    assert not kept["tile"].holds({"tile": 1})
    assert not kept["fast"].holds({"fast": 1})


@given(st.lists(st.lists(st.floats(1, 100), min_size=2, max_size=5), min_size=1, max_size=5))
def test_the_noise_does_not_depend_on_the_scale_and_the_bound_never_falls_below_its_least(
    values: list[list[float]],
) -> None:
    def trials(scale: float) -> list[TrialFinished]:
        return [
            TrialFinished(
                sweep="s", number=0, key="", config={}, state="measured", value=1.0, values=[v * scale for v in one]
            )
            for one in values
        ]

    noise, scaled = noise_of(trials(1)), noise_of(trials(3))

    assert noise is not None
    assert scaled is not None
    assert math.isclose(noise, scaled, rel_tol=1e-6, abs_tol=1e-9)
    assert bound_of(trials(1))[0] >= 0.05


# Policies ----------------------------------------------------------------------------------------------------------

FIGURES = {"saved_seconds": 3.0, "verdict_same": True, "judged": 4, "unknown": None}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("saved_seconds > 0 && verdict_same", True),
        ("saved_seconds > 5", False),
        ("judged >= 4 and not (saved_seconds < 1)", True),
        ("unknown > 0", False),
        ("unknown > 0 or verdict_same", True),
    ],
)
def test_a_policy_accepts_what_it_says(condition: str, holds: bool) -> None:
    assert accepts(read_policy(condition, FIGURES), FIGURES) is holds


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("saved_second > 0", "there is no saved_second; there are judged"),
        ("", "takes one condition"),
        ("verdict_same verdict_same", "takes one condition"),
        ("verdict_same } task other { success: true", "takes one condition"),
        ("saved_seconds >", "takes one condition"),
    ],
)
def test_a_policy_that_says_nothing_clear_is_refused(condition: str, message: str) -> None:
    with pytest.raises(ImproveError, match=message):
        read_policy(condition, FIGURES)
