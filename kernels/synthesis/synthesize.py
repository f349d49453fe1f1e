"""From examples to a program: read what can be read, explain what was changed and what was answered, check, and write.

Anti-unification (Plotkin 1970) over the recorded uses of tools: what is the same in all examples stays, what differs becomes a
hole, and each hole is explained by enumeration. The result is run against every example before anything is returned.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from morphogen.schemas.crystals import Parameter

from .bank import OutOfBudget, Search
from .changing import effects_of, explain_effects, shape_of
from .choosing import rooted
from .errors import SynthesisError
from .examples import Budget, Doubt, Drafted, Example, NotFound
from .invariants import categories, conditions
from .planning import Plan
from .predicates import predicate
from .program import Call, CallEach, If, Param, Program, Require, Return, Stmt, refs, walk
from .pruning import needed
from .reading import read_more
from .rewriting import simple
from .rivals import Rivals
from .running import run_program
from .tape import LOOKS, Tape
from .trust import doubtful, guarded, suspicious
from .values import annotation, is_number, loose, same
from .write import unwritable, written

_ROUNDS = 16


class _Refused(Exception):
    """There is no program, for this reason."""


def synthesize(
    examples: Sequence[Example],
    *,
    tools: Mapping[str, str],
    budget: Budget | None = None,
    goal: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Drafted | NotFound:
    """Return a program that does what every example shows, or why there is none.

    `tools` maps the names of tools to what they do to the world (`pure`, `read`, `write`, `external`; a name that is missing
    counts as external); `goal` is told in the text of the program, and constants that it names are not doubted. The same
    examples in the same order give the same program; the clock can only turn it into NotFound.
    """
    budget = budget or Budget()
    search = Search(budget, clock)
    try:
        _comparable(examples, tools, budget)
        return _drafted(list(examples), tools, search, goal)
    except _Refused as refused:
        return NotFound(reason=str(refused), tried=search.tried)
    except OutOfBudget:
        return NotFound(
            reason=f"nothing was found in {budget.seconds:g} s; give more time, or fewer examples", tried=search.tried
        )
    except RecursionError:
        return NotFound(reason="the values are nested too deep; record flatter ones", tried=search.tried)


def _comparable(examples: Sequence[Example], tools: Mapping[str, str], budget: Budget) -> None:
    if len(examples) < max(2, budget.examples):
        raise _Refused(f"{len(examples)} examples are too few: record at least {max(2, budget.examples)}")
    names = {tuple(sorted(one.params)) for one in examples}
    if len(names) > 1:
        raise _Refused("the examples have different parameters; give each execution of the family the same ones")
    bad = [name for name in examples[0].params if not name.isidentifier() or name.startswith("_") or not name.isascii()]
    roots = {name.split(".")[0] for name in tools}
    bad += [name for name in examples[0].params if unwritable(name) or name in roots]
    if bad:
        raise _Refused(f"{bad[0]!r} cannot be the name of a parameter; use a plain name that nothing else has")
    if any(loose(one.output) is None or loose(one.params) is None for one in examples):
        raise _Refused("an example holds a value that cannot be recorded; return plain values")


def _drafted(examples: list[Example], tools: Mapping[str, str], search: Search, goal: str) -> Drafted:
    _consistent(examples, tools)
    explained, rivals = _explained(examples, tools, search, goal)
    body = needed(explained, tools)
    constant = suspicious(body, examples, goal)
    if constant is not None:
        raise _Refused(constant)
    body, doubts = guarded(body, examples, tools)
    program = _program(examples, [simple(part) for part in body], tools)
    _checked(program, examples, tools)
    left_out = _left_out(program, examples, tools, search, goal)
    doubts = (*doubts, *rivals, *left_out, *doubtful(program, examples, tools, goal))
    source = written(program, goal=goal, examples=examples)
    return Drafted(
        program=program,
        source=source,
        source_sha256=f"sha256:{hashlib.sha256(source.encode()).hexdigest()}",
        params=tuple(_parameter(param, examples) for param in program.params),
        returns=program.returns,
        capabilities=program.tools,
        doubts=doubts,
        examples=len(examples),
        tried=search.tried,
    )


def _consistent(examples: Sequence[Example], tools: Mapping[str, str]) -> None:
    """Refuse examples that were asked the same, read the same, and did something else."""
    seen: dict[tuple[Any, ...], tuple[int, Any]] = {}
    for number, one in enumerate(examples):
        looked = sorted(
            (step.name, loose(step.args) or b"", loose(step.result) or b"")
            for step in one.steps
            if step.ok and tools.get(step.name, "external") in LOOKS
        )
        did = [
            (step.name, loose(step.args))
            for step in one.steps
            if step.ok and tools.get(step.name, "external") not in LOOKS
        ]
        key = (loose(one.params), tuple(looked))
        result = (loose(one.output), did)
        if key in seen and seen[key][1] != result:
            raise _Refused(
                f"examples {seen[key][0]} and {number} have the same parameters and readings and do not agree: "
                "the task depends on chance, on time, or on something that was not recorded"
            )
        seen.setdefault(key, (number, result))


def _explained(
    examples: list[Example], tools: Mapping[str, str], search: Search, goal: str
) -> tuple[list[Stmt], list[Doubt]]:
    plan = Plan(examples, tools, search, goal=goal)
    for name in examples[0].params:
        plan.source(name, [one.params[name] for one in examples])
    plan.hint(_hints([one.output for one in examples]))
    return _finished(plan, depth=0), plan.doubts


def _finished(plan: Plan, depth: int) -> list[Stmt]:
    """Return the statements that read, change and answer as the plan's examples do."""
    for _ in range(_ROUNDS):
        if not read_more(plan, late=False):
            break
    effects = effects_of(plan)
    missing = explain_effects(plan, effects)
    if missing is None:
        for _ in range(_ROUNDS if any(effects) else 0):
            if not read_more(plan, late=True):
                break
        found = plan.explainer.explain([one.output for one in plan.examples])
        if found is not None:
            done, answer, rivals = _settled(plan, [Return(found)])
            body = needed([*done, *rivals, *answer], plan.tools)[:-1]
            params = {name: values for name, values in plan.sources if not name.startswith("result")}
            checks = [*conditions(plan, done, [*body, *answer]), *categories([*body, *answer], params)]
            return [*_placed(done, _unlike([*checks, *rivals])), *answer]
        missing = f"the output ({_where(plan)}) follows from nothing that was given or read"
    if depth == 0:
        split = _by_case(plan, effects)
        if split is not None:
            return split
    raise _Refused(missing)


def _settled(plan: Plan, answer: list[Stmt]) -> tuple[list[Stmt], list[Stmt], list[Stmt]]:
    """Return what is done and answered with the best named of rivals, and the checks that they still agree."""
    wanted = {name for part in needed([*plan.body, *answer], plan.tools) for name in refs(part)}
    room = Rivals(plan, [*plan.body, *answer])
    answer = [room.statement(part) for part in answer]
    unread = [
        isinstance(part, Call | CallEach) and plan.tools.get(part.tool) in LOOKS and part.into not in wanted
        for part in plan.body
    ]
    done = [part if skip else room.statement(part) for part, skip in zip(plan.body, unread, strict=True)]
    plan.doubts += room.doubts
    return done, answer, list(room.checks)


def _unlike(checks: Sequence[Stmt]) -> list[Stmt]:
    """Return each check once."""
    return list({repr(part.test) if isinstance(part, Require) else repr(part): part for part in checks[::-1]}.values())[
        ::-1
    ]


def _placed(body: Sequence[Stmt], checks: Sequence[Stmt]) -> list[Stmt]:
    """Put each check where all that it names is known, and before anything is changed where that can be."""
    made = [part.into for part in body if isinstance(part, Call | CallEach) and part.into is not None]
    left = list(checks)
    placed: list[Stmt] = []
    for part in [None, *body]:
        if part is not None:
            placed.append(part)
            if isinstance(part, Call | CallEach) and part.into is not None:
                made.remove(part.into)
        now = [check for check in left if not refs(check) & set(made)]
        left = [check for check in left if check not in now]
        placed += now
    return placed


def _where(plan: Plan) -> str:
    """Name the first part of the output that cannot be explained."""
    outputs = [one.output for one in plan.examples]
    if all(isinstance(value, dict) and value.keys() == outputs[0].keys() for value in outputs):
        for key in outputs[0]:
            if plan.explainer.explain([value[key] for value in outputs], conditions=False) is None:
                return f"its {key!r}, such as {outputs[0][key]!r:.60}"
    return f"such as {outputs[0]!r:.60}"


def _by_case(plan: Plan, effects: Sequence[Sequence[Any]]) -> list[Stmt] | None:
    """Find a condition that tells the ways apart in which the examples change the world, and explain each way."""
    shapes = [shape_of(steps) for steps in effects]
    kinds = list(dict.fromkeys(shapes))
    if len(kinds) != 2 or min(shapes.count(kind) for kind in kinds) < 2:
        return None
    reads = [part for part in plan.body if isinstance(part, Call | CallEach) and plan.tools.get(part.tool) in LOOKS]
    test = predicate(plan.bank, [shape == kinds[0] for shape in shapes])
    if test is None:
        return None
    room = Rivals(plan, plan.body)
    test = room.hole(test, "")
    plan.doubts += room.doubts
    branches: list[tuple[Stmt, ...]] = []
    for kind in kinds:
        places = [place for place, shape in enumerate(shapes) if shape == kind]
        part = Plan(
            [plan.examples[place] for place in places],
            plan.tools,
            plan.search,
            goal=plan.goal,
            first=plan.made + 100 * len(branches),
        )
        part.doubts = plan.doubts
        part.bank = rooted(plan.bank, places)
        part.explainer = type(plan.explainer)(part.bank)
        part.sources = [(name, [values[place] for place in places]) for name, values in plan.sources]
        part.taken = [{name: set(keys) for name, keys in plan.taken[place].items()} for place in places]
        try:
            branches.append(tuple(_finished(part, depth=1)))
        except _Refused:
            return None
    return [*reads, *room.checks, If(test, branches[0], branches[1])]


def _program(examples: Sequence[Example], body: Sequence[Stmt], tools: Mapping[str, str]) -> Program:
    params = tuple(Param(name, annotation([one.params[name] for one in examples])) for name in examples[0].params)
    used = sorted({part.tool for part in walk(tuple(body)) if isinstance(part, Call | CallEach)})
    failed = {step.name for one in examples for step in one.steps if not step.ok and tools.get(step.name) in LOOKS}
    return Program(
        params=params,
        body=tuple(body),
        returns=annotation([one.output for one in examples]),
        tools=tuple(used),
        retried=tuple(sorted(failed & set(used))),
    )


def _checked(program: Program, examples: Sequence[Example], tools: Mapping[str, str]) -> None:
    """Run the program against every example; refuse where it does anything else."""
    for number, one in enumerate(examples):
        problem = _differs(program, one, tools)
        if problem:
            raise _Refused(f"the program that was found does not do what example {number} shows: {problem}")


def _differs(program: Program, example: Example, tools: Mapping[str, str]) -> str | None:
    tape = Tape(example.steps, tools)
    try:
        trace = run_program(program, example.params, tape.call)
        tape.finish()
    except SynthesisError as error:
        return str(error)
    return None if same(trace.value, example.output) else f"it answers {trace.value!r:.80}"


def _left_out(
    program: Program, examples: list[Example], tools: Mapping[str, str], search: Search, goal: str
) -> tuple[Doubt, ...]:
    """Learn from fewer examples, and see whether the others are foretold; refuse what is learned by heart."""
    if len(examples) < 6:
        return ()
    wrong = 0
    for fold in range(2):
        rest = [one for number, one in enumerate(examples) if number % 3 != fold]
        held = [one for number, one in enumerate(examples) if number % 3 == fold]
        try:
            body = needed(_explained(rest, tools, search, goal)[0], tools)
            part = _program(rest, guarded(body, rest, tools)[0], tools)
        except (_Refused, OutOfBudget):
            continue
        wrong += any(
            problem is not None and "answers" in problem for problem in (_differs(part, one, tools) for one in held)
        )
        if not wrong:
            break
    if wrong > 1:
        raise _Refused("what is learned from some of the examples does not hold in the others; record more of them")
    if wrong:
        return (
            Doubt(
                kind="choice", subject="output", text="two thirds of the examples lead to another program; record more"
            ),
        )
    return ()


def _hints(outputs: Sequence[Any]) -> list[str]:
    """Return short texts that stand in every output, keys too: they may be what was looked for in a text."""
    found = [set(_strings(value)) for value in outputs]
    common = set.intersection(*found) if found else set()
    return sorted(text for text in common if 1 < len(text) <= 24)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *_strings(item))]
    if isinstance(value, list):
        return [text for item in value[:50] for text in _strings(item)]
    return []


def _parameter(param: Param, examples: Sequence[Example]) -> Parameter:
    values = [one.params[param.name] for one in examples]
    sizes = [
        value if is_number(value) else len(value)
        for value in values
        if is_number(value) or isinstance(value, str | list | dict)
    ]
    distinct: dict[bytes | None, Any] = {}
    for value in values:
        distinct.setdefault(loose(value), value)
    return Parameter(
        name=param.name,
        type=param.type,
        seen=tuple(list(distinct.values())[:5]),
        minimum=float(min(sizes)) if sizes else None,
        maximum=float(max(sizes)) if sizes else None,
    )
