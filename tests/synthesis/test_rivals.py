"""Two columns, keys, readings or counts that always agreed: the program refuses where they differ, and answers where it knows."""

import functools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from morphogen.kernels.synthesis import CannotRun, Drafted, Example, Tape, ToolStep, run_program, synthesize
from morphogen.kernels.synthesis.evidence import words
from morphogen.kernels.synthesis.perturbing import worlds

TOOLS = {"files.read_text": "read", "mail.send": "external"}
Case = Callable[[random.Random, int, bool], Example]
CASES: list[Case] = []


def case(make: Case) -> Case:
    """Take a family: `agree` says whether two things that could be meant are the same in an example."""
    CASES.append(make)
    return make


def read(path: str, text: str) -> ToolStep:
    return ToolStep(name="files.read_text", args={"path": path}, result=text)


def table(rows: list[dict[str, Any]]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]) + "\n"


def of_table(number: int, rows: list[dict[str, Any]], output: Any, **params: Any) -> Example:
    return Example(
        params={"run": f"r{number}", **params}, steps=(read(f"runs/r{number}.csv", table(rows)),), output=output
    )


def of_json(number: int, data: Any, output: Any) -> Example:
    return Example(params={"run": f"r{number}"}, steps=(read(f"runs/r{number}.json", json.dumps(data)),), output=output)


def losses(dice: random.Random, count: int) -> list[float]:
    return [value / 1000 for value in dice.sample(range(100, 9000), count)]


@case
def least_by_a_column(dice: random.Random, number: int, agree: bool) -> Example:
    train = losses(dice, dice.randint(4, 9))
    val = [round(value * 1.5, 4) for value in train] if agree else train[::-1]
    rows = [
        {"id": f"s{n * 7 + number}", "train_loss": a, "val_loss": b}
        for n, (a, b) in enumerate(zip(train, val, strict=True))
    ]
    return of_table(number, rows, min(rows, key=lambda row: row["val_loss"])["id"])


@case
def in_the_order_of_a_column(dice: random.Random, number: int, agree: bool) -> Example:
    left = losses(dice, dice.randint(5, 9))
    right = [round(value + 2, 3) for value in left] if agree else losses(dice, len(left))
    rows = [{"id": f"s{dice.randint(100, 999)}", "left": a, "right": b} for a, b in zip(left, right, strict=True)]
    k = dice.randint(2, 4)
    return of_table(number, rows, [row["id"] for row in sorted(rows, key=lambda row: -row["right"])[:k]], k=k)


@case
def kept_by_a_column(dice: random.Random, number: int, agree: bool) -> Example:
    rows = []
    for _ in range(dice.randint(8, 14)):
        asked = dice.choice(["ada", "bob", "eve"])
        rows.append(
            {
                "asked": asked,
                "done": asked if agree else dice.choice(["ada", "bob", "eve"]),
                "hours": dice.randint(1, 50),
            }
        )
    who = dice.choice(["ada", "bob", "eve"])
    return of_table(number, rows, sum(row["hours"] for row in rows if row["done"] == who), who=who)


@case
def the_sum_of_a_column(dice: random.Random, number: int, agree: bool) -> Example:
    rows = []
    for _ in range(dice.randint(4, 9)):
        planned = dice.randint(10, 900)
        rows.append({"planned": planned, "spent": planned if agree else dice.randint(10, 900)})
    return of_table(number, rows, sum(row["spent"] for row in rows))


@case
def the_count_of_users(dice: random.Random, number: int, agree: bool) -> Example:
    names = [f"user{n}" for n in dice.sample(range(100), dice.randint(3, 9))]
    rows = [
        {"user": name, "minutes": dice.randint(1, 99)} for name in (names if agree else [*names, names[0], names[1]])
    ]
    return of_table(number, rows, {"users": len({row["user"] for row in rows})})


@case
def the_first_or_the_best(dice: random.Random, number: int, agree: bool) -> Example:
    found = losses(dice, dice.randint(4, 9))
    found = sorted(found) if agree else [*sorted(found)[1:], min(found)]
    rows = [{"id": f"s{dice.randint(100, 999)}", "loss": loss} for loss in found]
    return of_table(number, rows, min(rows, key=lambda row: row["loss"])["id"])


@case
def the_first_or_the_last(dice: random.Random, number: int, agree: bool) -> Example:
    names = [f"job-{dice.randint(1000, 9999)}" for _ in range(1 if agree else dice.randint(2, 6))]
    return of_json(number, {"jobs": names, "owner": dice.choice("abc")}, names[-1])


@case
def the_only_one_or_the_sum(dice: random.Random, number: int, agree: bool) -> Example:
    sizes = [dice.randint(1000, 9999) for _ in range(1 if agree else dice.randint(2, 6))]
    return of_json(number, {"sizes": sizes}, {"total": sum(sizes)})


@case
def one_of_two_keys(dice: random.Random, number: int, agree: bool) -> Example:
    best = dice.randint(1000, 9999)
    data = {"best": {"score": best}, "last": best if agree else dice.randint(1000, 9999), "seed": dice.randint(0, 9)}
    return of_json(number, data, f"the score is {data['last']}")


@case
def one_of_two_keys_beside(dice: random.Random, number: int, agree: bool) -> Example:
    best = dice.randint(1000, 9999)
    data = {"start": best, "end": best if agree else dice.randint(1000, 9999)}
    return of_json(number, data, data["end"] + 1000)


@case
def one_of_two_readings(dice: random.Random, number: int, agree: bool) -> Example:
    one = {"rate": dice.randint(100, 999)}
    two = {"rate": one["rate"] if agree else dice.randint(100, 999), "host": f"h{dice.randint(1, 99)}"}
    steps = (read("base.json", json.dumps(one)), read(f"runs/r{number}.json", json.dumps(two)))
    return Example(params={"run": f"r{number}"}, steps=steps, output={"rate": two["rate"], "run": f"r{number}"})


@case
def a_number_that_was_a_length(dice: random.Random, number: int, agree: bool) -> Example:
    names = [f"t{dice.randint(1000, 9999)}" for _ in range(dice.randint(2, 9))]
    k = len(names) if agree else dice.randint(1, len(names) + 3)
    made = of_json(number, {"sweep": {"trials": names}}, f"{k} trials of r{number}")
    return Example(params={**made.params, "k": k}, steps=made.steps, output=made.output)


@case
def which_flag_decides(dice: random.Random, number: int, agree: bool) -> Example:
    done = dice.random() < 0.5
    data = {"done": done, "paid": done if agree else dice.random() < 0.5, "cents": dice.randint(100, 9999)}
    return of_json(number, data, "closed" if data["paid"] else "open")


@case
def which_flag_changes_the_world(dice: random.Random, number: int, agree: bool) -> Example:
    late = number % 2 == 0
    data = {"late": late, "blocked": late if agree else dice.random() < 0.5}
    steps = [read(f"runs/r{number}.json", json.dumps(data))]
    if data["blocked"]:
        steps.append(ToolStep(name="mail.send", args={"to": "ops", "text": f"r{number} is stuck"}))
    return Example(params={"run": f"r{number}"}, steps=tuple(steps), output="told" if data["blocked"] else "fine")


@case
def a_count_that_was_never_reached(dice: random.Random, number: int, agree: bool) -> Example:
    names = [f"t{dice.randint(1000, 9999)}" for _ in range(dice.randint(2, 9))]
    k = len(names) + dice.randint(1, 9) if agree else dice.randint(1, len(names))
    made = of_json(number, {"trials": names}, names[:k])
    return Example(params={**made.params, "k": k}, steps=made.steps, output=made.output)


@case
def one_of_two_words_of_a_line(dice: random.Random, number: int, agree: bool) -> Example:
    lines, levels = [], ["INFO", "WARN", "ERROR"]
    for _ in range(dice.randint(5, 12)):
        level = dice.choice(levels)
        lines.append(f"{level} {level if agree else dice.choice(levels)} step{dice.randint(1, 99)}")
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.split()[1]] = counts.get(line.split()[1], 0) + 1
    return Example(
        params={"run": f"r{number}"}, steps=(read(f"r{number}.log", "\n".join(lines) + "\n"),), output=counts
    )


@case
def a_filter_that_kept_all(dice: random.Random, number: int, agree: bool) -> Example:
    who = dice.choice(["ada", "bob", "eve"])
    count = dice.randint(4, 9)
    rows = [
        {"by": who if agree else dice.choice(["ada", "bob", "eve"]), "hours": dice.randint(1, 99)} for _ in range(count)
    ]
    return of_table(number, rows, sum(row["hours"] for row in rows if row["by"] == who), who=who)


@functools.cache
def drafted(make: Case, always: bool, goal: str = "", count: int = 14) -> Drafted:
    """Draft a family that is recorded where the two always agree, or where they do in every third example."""
    shown = [make(random.Random(f"{make.__name__} {n}"), n, always or n % 3 == 0) for n in range(count)]
    found = synthesize(shown, tools=TOOLS, goal=goal)
    assert isinstance(found, Drafted), found
    return found


def answers(found: Drafted, one: Example) -> Any:
    """Return what a program says of an example, or None where it refuses."""
    try:
        return run_program(found.program, one.params, Tape(one.steps, TOOLS).call).value
    except CannotRun:
        return None


def refused(found: Drafted, make: Case) -> int:
    """Return how many of thirty new examples, where nothing need agree, a program refuses; of the others none is wrong."""
    said = []
    for number in range(50, 80):
        one = make(random.Random(f"in use {number}"), number, False)
        said.append(answers(found, one))
        assert said[-1] is None or said[-1] == one.output, found.source
    return said.count(None)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_what_always_agreed_must_agree(make: Case) -> None:
    found = drafted(make, always=True)
    assert refused(found, make) > 5
    for number in range(50, 60):
        one = make(random.Random(f"as before {number}"), number, True)
        assert answers(found, one) == one.output, found.source


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_what_the_examples_tell_apart_is_answered(make: Case) -> None:
    found = drafted(make, always=False)
    assert refused(found, make) == 0, found.source


def test_a_doubt_names_both_columns() -> None:
    found = drafted(least_by_a_column, always=True)
    texts = [one.text for one in found.doubts if one.kind == "rival"]
    assert any("train_loss" in text and "val_loss" in text and "14 examples" in text for text in texts)


def test_a_rival_that_the_examples_refute_is_not_told() -> None:
    found = drafted(least_by_a_column, always=False)
    assert not [one for one in found.doubts if one.kind == "rival" and "train_loss" in one.text]
    assert "train_loss" not in found.source


@pytest.mark.parametrize("goal", ["which has the lowest validation loss?", "which has the lowest training loss?"])
def test_of_two_columns_the_one_that_the_goal_names_is_taken(goal: str) -> None:
    found = drafted(least_by_a_column, always=True, goal=goal)
    named = "val_loss" if "validation" in goal else "train_loss"
    assert f'min(rows, key=lambda row: float(row["{named}"]))' in found.source.split("if ")[0]


def test_names_are_taken_apart_as_people_write_them() -> None:
    assert words("val_loss of valLoss, GPU 3") == ["val", "loss", "of", "val", "loss", "gpu", "3"]


def test_worlds_are_the_same_each_time_and_keep_their_form() -> None:
    sources = [
        ("text", [table([{"a": 1, "b": 2.5}, {"a": 7, "b": 3.5}])]),
        ("data", [{"x": [1, 2], "y": {"z": "k1"}}]),
        ("n", [3, 4]),
    ]
    made = worlds(sources, 20)
    assert made == worlds(sources, 20)
    for one in made:
        assert one["text"].startswith("a,b\n")
        assert all(line.count(",") == 1 for line in one["text"].splitlines())
        assert set(one["data"]) == {"x", "y"} and isinstance(one["n"], int)


def test_no_tool_imports_typing() -> None:
    for make in CASES:
        assert "typing" not in drafted(make, always=False).source
