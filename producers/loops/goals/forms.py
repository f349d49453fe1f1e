"""What a model may answer in the loops that pursue goals, as JSON schemas; and a recorded course as words for it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from .acting import shown

_ANYTHING = {"type": ["string", "number", "boolean", "object", "array"]}
_STEP, _COURSE = 600, 8000  # characters of one step, and of a whole course


class Did(Protocol):
    """A use of a function, as far as a model is told of it."""

    @property
    def name(self) -> str:
        """Return the function."""

    @property
    def args(self) -> Mapping[str, Any]:
        """Return its arguments."""

    @property
    def result(self) -> Any:
        """Return what it gave."""

    @property
    def ok(self) -> bool:
        """Return whether it gave anything."""

    @property
    def error(self) -> str | None:
        """Return why not."""


class Taken(Did, Protocol):
    """A recorded step."""

    @property
    def kind(self) -> str:
        """Return tool or llm."""


class Course(Protocol):
    """A recorded execution, as far as it can guide another."""

    @property
    def goal(self) -> str:
        """Return what was wanted then."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Return its values by name."""

    @property
    def steps(self) -> Sequence[Taken]:
        """Return what was done."""

    @property
    def output(self) -> Any:
        """Return the answer."""


def move_form(functions: Sequence[str]) -> str:
    """Return the form of a next step: a tool with arguments, an answer, or giving up."""
    return _form(
        {
            "plan": {"type": "string", "description": "what is still to be done, in a few words"},
            "tool": {"enum": list(functions)},
            "arguments": {"type": "object"},
            "answer": {**_ANYTHING, "description": "the answer to the goal, once it is reached"},
            "give_up": {"type": "string", "description": "why the goal cannot be reached"},
        },
        one_of=("tool", "answer", "give_up"),
    )


def verdict_form() -> str:
    """Return the form of a judgement."""
    return _form({"reached": {"type": "boolean"}, "why": {"type": "string"}}, required=("reached", "why"))


def split_form() -> str:
    """Return the form of a goal's parts."""
    part = {
        "type": "object",
        "properties": {"goal": {"type": "string"}, "params": {"type": "object"}},
        "required": ["goal"],
        "additionalProperties": False,
    }
    return _form({"parts": {"type": "array", "items": part}}, required=("parts",))


def join_form() -> str:
    """Return the form of an answer made of parts."""
    return _form({"answer": _ANYTHING, "give_up": {"type": "string"}}, one_of=("answer", "give_up"))


def guide_of(goal: str, params: Mapping[str, Any], steps: Iterable[Taken], output: Any) -> str:
    """Return a recorded course as an example: the way it took with what each step gave, for a goal that was another one.

    Long values are cut; a course of more than 8,000 characters loses its middle steps.
    """
    tools = [step for step in steps if step.kind == "tool"]
    lines = [f"{at}. {said(step)}" for at, step in enumerate(tools, start=1)]
    size = sum(map(len, lines))
    left_out = 0
    while size > _COURSE and len(lines) > 2:
        size -= len(lines.pop(len(lines) // 2))
        left_out += 1
    if left_out:
        lines.insert((len(lines) + 1) // 2, f"({left_out} more steps)")
    return "\n".join(
        [
            f"The goal then: {goal}",
            f"Its parameters: {shown(dict(params), _STEP)}",
            *lines,
            f"Its answer: {shown(output, _STEP)}",
            "Take the same way where it fits. The goal and the values now are those given here, not those of then.",
        ]
    )


def done_before(done: Sequence[Did]) -> str:
    """Return what earlier attempts at this very goal have changed: it holds, and doing it again does nothing."""
    if not done:
        return "Nothing yet."
    return "\n".join(
        ["An attempt before this one has already done this, which need not be done again:", *map(said, done)]
    )


def said(step: Did) -> str:
    """Return a use of a function with what it gave, in one line; long values are cut."""
    came = f"-> {shown(step.result, _STEP)}" if step.ok else f"failed: {(step.error or 'it failed')[:_STEP]}"
    return f"{step.name} {shown(dict(step.args), _STEP)} {came}"


def _form(properties: Mapping[str, Any], *, required: Sequence[str] = (), one_of: Sequence[str] = ()) -> str:
    form: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        form["required"] = list(required)
    if one_of:
        form["anyOf"] = [{"required": [name]} for name in one_of]
    return json.dumps(form, ensure_ascii=False)
