"""The text of a tool: the same each time, formatted, within the grammar, and it fails in one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.sandbox import check
from morphogen.kernels.synthesis import Budget, Drafted, Example, NotFound, ToolStep, synthesize

from .families import HONEST, TOOLS, record

SOME = [one for one in HONEST if one.__name__ in ("report", "merge", "ensured", "levels", "schedule")]
RUFF = Path(sys.executable).with_name("ruff")
CODE = """
from tests.synthesis.families import HONEST, TOOLS, record
from morphogen.kernels.synthesis import synthesize
for family in HONEST[7:12]:
    print(synthesize(record(family, 10, "same"), tools=TOOLS).source)
"""


@pytest.mark.skipif(not RUFF.exists(), reason="ruff is not installed beside this interpreter")
def test_the_text_is_formatted() -> None:
    for family in SOME:
        found = synthesize(record(family, 12, "formatted"), tools=TOOLS, goal='Do "it"\\now')
        assert isinstance(found, Drafted), found
        arguments = [str(RUFF), "format", "--check", "--line-length", "120", "--stdin-filename", "tool.py", "-"]
        done = subprocess.run(arguments, input=found.source, text=True, capture_output=True, check=False)
        assert done.returncode == 0, found.source


def test_the_text_is_the_same_whatever_the_hash_seed() -> None:
    texts = set()
    for seed in ("0", "77"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            env=environment,
            cwd=root,
            text=True,
            capture_output=True,
            check=True,
            timeout=120,
        )
        texts.add(done.stdout)
    assert len(texts) == 1 and "def run(" in texts.pop()


def test_the_text_fails_in_one_line_on_other_input() -> None:
    shown = [Example(params={"n": n, "words": ["a", f"w{n * n}"]}, output=f"w{n * n}: {n + 1}") for n in range(6)]
    found = synthesize(shown, tools=TOOLS)
    assert isinstance(found, Drafted), found
    space: dict[str, Any] = {"ToolError": OSError}
    exec(compile(found.source, "<tool>", "exec"), space)
    assert space["run"](n=9, words=["a", "b"]) == "b: 10"
    for bad in (
        {"n": "9", "words": ["a", "b"]},
        {"n": True, "words": ["a", "b"]},
        {"n": 9, "words": []},
        {"n": 9, "words": [1, 2]},
    ):
        with pytest.raises(ValueError, match=r"type|like") as refusal:
            space["run"](**bad)
        assert "\n" not in str(refusal.value)


def test_a_tool_that_failed_once_is_asked_again() -> None:
    def one(n: int) -> Example:
        args = {"path": f"{n}.txt"}
        steps = [ToolStep(name="files.read_text", args=args, ok=False, error="busy")] if n % 3 == 0 else []
        steps.append(ToolStep(name="files.read_text", args=args, result=f"value {n * 37 % 11}"))
        return Example(params={"n": n}, steps=tuple(steps), output=n * 37 % 11)

    found = synthesize([one(n) for n in range(8)], tools=TOOLS)
    assert isinstance(found, Drafted), found
    assert found.program.retried == ("files.read_text",)
    answers: list[Any] = [OSError("busy"), "value 7"]

    class Files:
        @staticmethod
        def read_text(path: str) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    space: dict[str, Any] = {"ToolError": OSError, "files": Files}
    exec(compile(found.source, "<tool>", "exec"), space)
    assert space["run"](n=7) == 7


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(width=32) | st.text(max_size=6) | st.just("2026-01-01"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
STEPS = st.builds(
    ToolStep, name=st.sampled_from(["files.read_text", "mail.send"]), args=st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2),
    result=VALUES, ok=st.booleans(),
)  # fmt: skip
EXAMPLES = st.lists(
    st.builds(Example, params=st.fixed_dictionaries({"x": VALUES, "y": VALUES}), steps=st.lists(STEPS, max_size=3).map(tuple), output=VALUES),
    min_size=3, max_size=4,
)  # fmt: skip


@settings(max_examples=60)
@given(EXAMPLES)
def test_whatever_is_given_the_answer_is_a_program_in_the_grammar_or_a_reason(examples: list[Example]) -> None:
    found = synthesize(examples, tools=TOOLS, budget=Budget(seconds=5.0))
    if isinstance(found, NotFound):
        assert found.reason and "\n" not in found.reason
    else:
        check(found.source, entry="run", tools=found.capabilities)


def test_no_time_gives_no_program_and_not_another() -> None:
    ticks = iter(range(10_000_000))
    found = synthesize(
        record(HONEST[2], 10, "time"), tools=TOOLS, budget=Budget(seconds=3.0), clock=lambda: float(next(ticks))
    )
    assert isinstance(found, NotFound) and "3 s" in found.reason
