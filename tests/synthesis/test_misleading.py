"""What only looks like a rule is refused, or guarded so that it is never used where it was not seen to hold."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from morphogen.kernels.synthesis import CannotRun, Drafted, Example, NotFound, Tape, ToolStep, run_program, synthesize

TOOLS = {"files.read_text": "read", "files.exists": "read", "clock.now": "read", "mail.send": "external"}


def examples(make: Callable[[random.Random, int], Example], count: int = 14) -> list[Example]:
    return [make(random.Random(f"misleading {number}"), number) for number in range(count)]


def read(path: str, text: Any, name: str = "files.read_text") -> ToolStep:
    return ToolStep(name=name, args={"path": path}, result=text)


def refused(make: Callable[[random.Random, int], Example]) -> str:
    found = synthesize(examples(make), tools=TOOLS)
    assert isinstance(found, NotFound), found.source
    assert "\n" not in found.reason
    return found.reason


def drafted(make: Callable[[random.Random, int], Example]) -> Drafted:
    found = synthesize(examples(make), tools=TOOLS)
    assert isinstance(found, Drafted), found
    return found


def stops(found: Drafted, params: dict[str, Any], *steps: ToolStep) -> None:
    with pytest.raises(CannotRun):
        run_program(found.program, params, Tape(steps, TOOLS).call)


def test_chance_is_refused() -> None:
    assert "follows from nothing" in refused(lambda dice, n: Example(params={"n": n}, output=dice.random()))


def test_a_coin_is_refused_though_some_test_would_tell_the_sides_apart() -> None:
    refused(
        lambda dice, n: Example(params={"n": n, "name": f"{dice.random():.6f}"}, output=dice.choice(["heads", "tails"]))
    )


def test_the_same_question_with_two_answers_is_refused() -> None:
    assert "do not agree" in refused(lambda dice, n: Example(params={"n": n % 3}, output=n))


def test_a_counter_that_nobody_recorded_is_refused() -> None:
    state = {"count": 0}

    def make(dice: random.Random, number: int) -> Example:
        state["count"] += dice.randint(1, 9)
        return Example(params={"name": f"job{dice.randint(100, 999)}"}, output=f"ticket {state['count']}")

    refused(make)


@pytest.mark.parametrize("made", ["2026-11-21", "10:32:07", "1763721600", "Saturday", "3f2b1c9a8d7e6f50", "20261121"])
def test_a_constant_that_looks_like_a_time_or_an_identifier_is_refused(made: str) -> None:
    reason = refused(lambda dice, n: Example(params={"name": f"n{n}"}, output=f"n{n} as of {made}"))
    assert "stands in every example" in reason


def test_a_date_that_the_goal_names_is_allowed() -> None:
    shown = examples(lambda dice, n: Example(params={"name": f"n{n}"}, output=f"n{n} as of 2026-11-21"))
    assert isinstance(synthesize(shown, tools=TOOLS, goal="name and 2026-11-21"), Drafted)


def test_the_clock_is_read_where_it_was_read() -> None:
    def make(dice: random.Random, number: int) -> Example:
        now = f"2026-0{dice.randint(1, 9)}-{dice.randint(10, 28)}"
        return Example(
            params={"name": f"n{number}"},
            steps=(ToolStep(name="clock.now", args={}, result=now),),
            output=f"n{number} {now}",
        )

    assert drafted(make).capabilities == ("clock.now",)


def test_a_parameter_that_never_varied_is_asked_for_again() -> None:
    found = drafted(lambda dice, n: Example(params={"n": n, "currency": "EUR"}, output=f"{n} EUR"))
    assert [(one.kind, one.subject) for one in found.doubts if one.kind == "never_varied"] == [
        ("never_varied", "currency")
    ]
    assert run_program(found.program, {"n": 99, "currency": "EUR"}, Tape((), TOOLS).call).value == "99 EUR"
    stops(found, {"n": 99, "currency": "USD"})


def test_parameters_that_were_always_equal_must_be() -> None:
    found = drafted(lambda dice, n: Example(params={"run": f"r{n}", "label": f"r{n}"}, output=f"see r{n}"))
    assert any(one.kind == "equal" for one in found.doubts)
    stops(found, {"run": "r1", "label": "r2"})


def test_a_parameter_that_happened_to_be_what_was_read_must_be_it_again() -> None:
    def make(dice: random.Random, number: int) -> Example:
        jobs = [f"job-{dice.randint(1000, 9999)}" for _ in range(dice.randint(2, 9))]
        step = read(f"queue{number}.txt", "\n".join(jobs))
        return Example(params={"k": len(jobs), "path": f"queue{number}.txt"}, steps=(step,), output=jobs)

    stops(drafted(make), {"k": 1, "path": "q"}, read("q", "job-1\njob-2\njob-3"))


def test_who_owns_what_from_memory_is_not_guessed_for_others() -> None:
    owners = {"apollo": "ada", "zeus": "bob", "hera": "ada", "janus": "bob"}

    def make(dice: random.Random, number: int) -> Example:
        service = sorted(owners)[number % 4]
        return Example(params={"service": service, "n": number}, output=owners[service])

    found = synthesize(examples(make), tools=TOOLS)
    if isinstance(found, Drafted):
        stops(found, {"service": "vesta", "n": 3})


def test_a_winner_that_always_won_is_looked_at_again() -> None:
    def make(dice: random.Random, number: int) -> Example:
        low, high = dice.uniform(0, 0.5), dice.uniform(0.6, 1)
        steps = (read(f"a{number}", f"{low:.4f}\n"), read(f"b{number}", f"{high:.4f}\n"))
        return Example(params={"first": f"a{number}", "second": f"b{number}"}, steps=steps, output=f"a{number}")

    found = drafted(make)
    stops(found, {"first": "x", "second": "y"}, read("x", "0.9000\n"), read("y", "0.1000\n"))


def test_a_reading_that_always_said_the_same_must_say_it_again() -> None:
    def make(dice: random.Random, number: int) -> Example:
        return Example(params={"n": number}, steps=(read("mode.txt", "normal"),), output=f"{number} in use")

    found = drafted(make)
    stops(found, {"n": 3}, read("mode.txt", "maintenance"))


def test_a_change_of_the_world_is_never_left_out() -> None:
    def make(dice: random.Random, number: int) -> Example:
        send = ToolStep(name="mail.send", args={"to": "ada", "text": f"{dice.random()}"}, result=None)
        return Example(params={"n": number}, steps=(send,), output=number)

    assert "mail.send" in refused(make)


def test_too_few_and_unlike_examples_are_refused() -> None:
    one, two = Example(params={"n": 1}, output=2), Example(params={"m": 1}, output=2)
    assert "too few" in synthesize([one], tools=TOOLS).reason  # type: ignore[union-attr]
    assert "different parameters" in synthesize([one, one, two], tools=TOOLS).reason  # type: ignore[union-attr]
    bad = Example(params={"id": 1}, output=1)
    assert "'id'" in synthesize([bad, bad, bad], tools=TOOLS).reason  # type: ignore[union-attr]
