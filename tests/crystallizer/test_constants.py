"""Constants that come from the clock of the recording, and those that do not."""

import ast

import pytest

from morphogen.consumers.crystallizer.gauntlet.constants import of_the_clock

DAY = 1_763_726_400 * 10**9  # 2025-11-21, a Friday


@pytest.mark.parametrize(
    "text",
    ["'2025-11-21'", "f'report-2025-11-21-{x}.txt'", "'20251121'", "'21.11.2025'", "'11/21/2025'", "'© 2025'", "2025", "1763726400",
     "1763726400000", "'2025-11-20T23:59:00Z'", "'Friday'", "'in November'", "739576", "20413"],
)  # fmt: skip
def test_the_day_of_the_recording_is_found(text: str) -> None:
    assert of_the_clock(ast.parse(f"def run(x):\n    return {text}\n"), [DAY], ["do it"]) is not None


@pytest.mark.parametrize(
    "text",
    ["'total'", "'1970-01-01'", "'2024-02-30'", "3600", "1024", "20251", "'version 1.2.3'", "0.2", "'monthly'",
     "['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']"],
)  # fmt: skip
def test_other_constants_are_let_be(text: str) -> None:
    assert of_the_clock(ast.parse(f"def run(x):\n    return {text}\n"), [DAY], ["do it"]) is None


def test_a_date_that_a_parameter_or_an_answer_gives_has_a_right_to_be_there() -> None:
    tree = ast.parse("def run(day):\n    return '2025-11-21'\n")
    assert of_the_clock(tree, [DAY], [{"day": "2025-11-21"}]) is None
    assert of_the_clock(tree, [DAY], [["head", b"at 2025-11-21 10:00"]]) is None
    assert of_the_clock(tree, [DAY], [{"day": "2025-11-22"}]) is not None


def test_a_docstring_is_no_constant() -> None:
    tree = ast.parse('"""Of 2025-11-21."""\n\n\ndef run(x):\n    """Seen on 2025-11-21."""\n    return x\n')
    assert of_the_clock(tree, [DAY], []) is None


def test_where_nobody_knows_when_it_was_recorded_any_date_is_suspect() -> None:
    tree = ast.parse("def run(x):\n    return '2019-05-04'\n")
    assert of_the_clock(tree, [0], []) == "2019-05-04"
    assert of_the_clock(tree, [DAY], []) is None
