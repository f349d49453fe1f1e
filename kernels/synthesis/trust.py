"""What the examples did not decide: constants that only happen to be the same, parameters that never varied.

Where it can be checked when the program runs, the program refuses what was never seen. Where it cannot, it is told as a doubt; a
constant that looks like a time, or like the name of something that is made anew each time, is refused outright.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .examples import Doubt, Example
from .program import NODES, Const, Expr, If, Op, Program, Ref, Require, Stmt, refs, walk
from .tape import LOOKS
from .values import loose, same

_TIMES = (
    (re.compile(r"(?<!\d)(19|20)\d\d-[01]\d-[0-3]\d(?!\d)"), "a date"),
    (re.compile(r"(?<![\d.])[0-2]?\d:[0-5]\d(:[0-5]\d)?(?![\d.])"), "a time of day"),
    (re.compile(r"(?<!\d)(19|20)\d\d[01]\d[0-3]\d(?!\d)"), "a date"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "an identifier made by chance"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{16,}\b"), "a hash"),
    (re.compile(r"(?<!\d)1[5-9]\d{8}(\d{3}|\d{6}|\d{9})?(?!\d)"), "a count of seconds since 1970"),
    (re.compile(r"\b(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b"), "a day of the week"),
    (re.compile(r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{1,4}\b"), "a date"),
)  # fmt: skip
_PLAIN = (str, int, float, bool)


def suspicious(body: Sequence[Stmt], examples: Sequence[Example], goal: str) -> str | None:
    """Return why a constant of a program cannot be trusted, or None: it may be another one tomorrow."""
    asked = goal + " " + " ".join(str(value) for one in examples[:1] for value in one.params.values())
    for part in walk(tuple(body)):
        if not isinstance(part, Const):
            continue
        value = part.value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        text = str(value)
        for pattern, what in _TIMES:
            found = pattern.search(text)
            if found is not None and found.group() not in asked and not (isinstance(value, float) and what != "a date"):
                return (
                    f"{found.group()!r} stands in every example, looks like {what}, and no parameter or reading says it; "
                    "give it as a parameter, or read it with a tool"
                )
    return None


def guarded(
    body: Sequence[Stmt], examples: Sequence[Example], tools: Mapping[str, str]
) -> tuple[list[Stmt], tuple[Doubt, ...]]:
    """Return the statements with checks of what never varied put where it is known, and what they are for."""
    checks: list[Stmt] = []
    doubts: list[Doubt] = []
    params = examples[0].params
    varied: list[str] = []
    for name in params:
        values = [one.params[name] for one in examples]
        if all(same(value, values[0]) for value in values):
            doubts.append(
                Doubt(kind="never_varied", subject=name, text=f"{name} was {values[0]!r:.60} in all {len(values)} examples; no other is accepted",
                      values=(values[0],))
            )  # fmt: skip
            checks.append(
                Require(
                    Op("eq", (Ref(name), _constant(values[0]))), f"{name} was always {values[0]!r:.60} in the examples"
                )
            )
        else:
            varied.append(name)
    for place, one in enumerate(varied):
        for two in varied[:place]:
            if all(same(example.params[one], example.params[two]) for example in examples):
                doubts.append(
                    Doubt(kind="equal", subject=one, text=f"{one} and {two} were equal in all {len(examples)} examples; they must be",
                          values=(two,))
                )  # fmt: skip
                checks.append(
                    Require(Op("eq", (Ref(one), Ref(two))), f"{one} and {two} were always equal in the examples")
                )
    kept = [_told(part) for part in body]
    return [*checks, *kept], tuple(doubts)


def _told(part: Stmt) -> Stmt:
    if isinstance(part, Require) and not part.message:
        return Require(part.test, "a value is none of those that the examples show")
    if isinstance(part, If):
        return If(part.test, tuple(map(_told, part.then)), tuple(map(_told, part.other)))
    return part


def _constant(value: Any) -> Expr:
    return Const(value)


def doubtful(program: Program, examples: Sequence[Example], tools: Mapping[str, str], goal: str) -> tuple[Doubt, ...]:
    """Return what else a reader should know: constants of unknown origin, parameters and readings without use."""
    count = len(examples)
    doubts: list[Doubt] = []
    used = {name for part in program.body if not isinstance(part, Require) for name in refs(part)}
    for param in program.params:
        values = [one.params[param.name] for one in examples]
        if param.name not in used and not all(same(value, values[0]) for value in values):
            doubts.append(
                Doubt(
                    kind="unused", subject=param.name, text=f"{param.name} changes nothing in any of {count} examples"
                )
            )
    for value in _constants(program):
        if isinstance(value, str) and value.lower() not in goal.lower():
            doubts.append(
                Doubt(
                    kind="constant",
                    subject=value[:60],
                    text=f"constant {value[:60]!r} seen in all {count} examples",
                    values=(value,),
                )
            )
        elif not isinstance(value, str) and value not in (0, 1, 2, 10, 100, -1):
            doubts.append(
                Doubt(
                    kind="constant",
                    subject=str(value),
                    text=f"constant {value} learned from {count} examples",
                    values=(value,),
                )
            )
    tests = [part for part in walk(program.body) if isinstance(part, Op) and part.op in ("lt", "le", "gt", "ge")]
    limits = [test.args[1].value for test in tests if isinstance(test.args[1], Const)]
    doubts += [
        Doubt(
            kind="bound",
            subject=str(limit),
            text=f"the limit {limit} lies somewhere between recorded values",
            values=(limit,),
        )
        for limit in limits
    ]
    called = set(program.tools)
    everywhere = set.intersection(*({step.name for step in one.steps if step.ok} for one in examples))
    doubts += [
        Doubt(kind="unread", subject=name, text=f"{name} was used in every example and is not needed")
        for name in sorted(everywhere - called)
        if tools.get(name, "external") in LOOKS
    ]
    return tuple(doubts[:24])


def _constants(program: Program) -> list[Any]:
    """Return the constants that a program answers with or passes on, keys and formats left out."""
    found: dict[bytes | None, Any] = {}

    def visit(node: Any, parent: Any) -> None:
        if isinstance(node, Const):
            value = node.value
            key_or_mark = isinstance(parent, Op) and parent.op not in (
                "add",
                "sub",
                "mul",
                "div",
                "floordiv",
                "eq",
                "ne",
                "concat",
            )
            says = not isinstance(value, str) or any(char.isalpha() for char in value)
            if type(value) in _PLAIN and not isinstance(value, bool) and not key_or_mark and says:
                found.setdefault(loose(value), value)
            return
        for name in getattr(node, "__struct_fields__", ()):
            held = getattr(node, name)
            for one in _parts(held):
                visit(one, node)

    for part in program.body:
        if not isinstance(part, Require):
            visit(part, None)
    return list(found.values())


def _parts(held: Any) -> list[Any]:
    if isinstance(held, tuple):
        return [one for item in held for one in _parts(item)]
    return [held] if isinstance(held, NODES) else []
