"""What to do now, from how it was done before: the courses of a family, anti-unified step by step. Pure.

Courses of one shape (the same tools in the same order) become one plan whose arguments and answer are explained by parameters and
earlier results. Where the request's parameters, and all results so far, are those of a recorded course, its next step is taken as
it stands: whoever knew the same did this. Two such courses that then part show hidden state, and are refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.consumers.executions import Trace

from .compute import Ground, Use, holes, sources, value_of
from .courses import CALM, Course, courses_of, tidied
from .explain import CannotFollow, Fixed, Hole, Known, Source, Text, Tree, explain, same, stamp

MOST = 20  # courses of a family that a plan is made from


@dataclass(frozen=True)
class Planned:
    """A step to take: the tool, how its arguments come about, and the types that its results had."""

    name: str
    effect: str
    args: Tree
    types: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """The steps and the answer, and the courses that they stand on; `lead` is the newest of them."""

    lead: Course
    steps: tuple[Planned, ...]
    answer: Tree
    ground: Ground
    courses: tuple[Course, ...]
    every: tuple[Course, ...]
    questions: Mapping[int, Tree]
    counted: Mapping[Source, frozenset[int]]
    silent: frozenset[int]
    """Looks whose results flow nowhere: they were taken to decide by."""

    @property
    def changes(self) -> bool:
        """Whether it changes the world."""
        return self.lead.changes


@dataclass(frozen=True)
class Next:
    """What comes next: a call, or, with no name, the end with an answer. `literal` where a recorded course is repeated."""

    name: str | None
    args: dict[str, Any]
    value: Any = None
    effect: str = "pure"
    types: frozenset[str] = frozenset()
    literal: bool = False


@dataclass(frozen=True)
class Taken:
    """A step that was taken now: the tool, and what it gave."""

    name: str
    result: Any


_NOTHING: Mapping[str, str] = {}


def plan_of(traces: Iterable[Trace]) -> Plan:
    """Make a plan of a family's traces. Raises CannotFollow where none of them can be gone again."""
    every = courses_of(traces, MOST)
    if not every:
        raise CannotFollow("no recorded execution of it succeeded and is whole")
    shapes: dict[tuple[str, ...], list[Course]] = {}
    for course in tidied(every):
        shapes.setdefault(course.shape, []).append(course)
    group = max(shapes.values(), key=len)  # the first of equals: the one with the newest course
    names = group[0].params.keys()
    group = [course for course in group if course.params.keys() == names]
    lead = group[0]
    steps = tuple(_planned(group, at) for at in range(len(lead.steps)))
    answer = explain([course.output for course in group], [course.known(len(course.steps)) for course in group])
    contexts = {stamp([dict(one.params), [step.result for step in one.steps]]) for one in group}
    ground = Ground(len(contexts), len({stamp(dict(one.params)) for one in group}) > 1)
    questions = _questions(group)
    trees = [*(step.args for step in steps), answer, *questions.values()]
    flowing = {
        source.key
        for tree in [*(step.args for step in steps), answer]
        for source in sources(tree)
        if source.root == "step"
    }
    silent = frozenset(at for at, step in enumerate(steps) if step.effect in CALM and at not in flowing)
    return Plan(lead, steps, answer, ground, tuple(group), every, questions, _counted(group, trees), silent)


def check(plan: Plan, params: Mapping[str, Any], environment: Mapping[str, str] = _NOTHING) -> None:
    """Refuse, before anything is done, what is known already not to work for these parameters. Raises CannotFollow."""
    if plan.lead.params.keys() != params.keys():
        took, given = sorted(plan.lead.params), sorted(params)
        raise CannotFollow(f"it was done with the parameters {took}, and is asked for with {given}")
    if any(_is_on(course, params, (), environment) for course in plan.every):
        return  # a recorded course may be repeated as it stands
    for name, value in params.items():
        types = {type(course.params[name]).__name__ for course in plan.courses}
        if type(value).__name__ not in types:
            raise CannotFollow(
                f"the parameter {name!r} is of type {type(value).__name__}, and was {' or '.join(sorted(types))}"
            )
    known = Known(params)
    for at, step in enumerate(plan.steps):
        _check_tree(plan, step.args, known, Use(f"argument of step {at} ({step.name})", step.effect))
    _check_tree(plan, plan.answer, known, Use("the answer", answer=True, changes=plan.changes))


def next_step(
    plan: Plan, params: Mapping[str, Any], taken: Sequence[Taken], environment: Mapping[str, str] = _NOTHING
) -> Next:
    """Return what comes after the steps that were `taken`. Raises CannotFollow where the past does not say.

    A recorded course is repeated as it stands only where the environment is as it was, as far as both name it.
    """
    at = len(taken)
    alive = [course for course in plan.every if _is_on(course, params, taken, environment)]
    if alive:
        return _repeated(alive, at)
    names = tuple(step.name for step in plan.steps)
    if tuple(one.name for one in taken) != names[:at]:
        raise CannotFollow("the world is not as it was, and the courses of another shape do not begin like this")
    results = [one.result for one in taken]
    for place in plan.silent:
        if place < at and not any(same(course.steps[place].result, results[place]) for course in plan.courses):
            raise CannotFollow(
                f"step {place} ({names[place]}) gave what no course saw, and what it gives decides something that is not written down"
            )
    known = _drawn(plan, params, results)
    _check_counts(plan, known)
    if at == len(names):
        use = Use("the answer", answer=True, changes=plan.changes)
        return Next(None, {}, value_of(plan.answer, known, plan.ground, use))
    step = plan.steps[at]
    args = value_of(step.args, known, plan.ground, Use(f"argument of step {at} ({step.name})", step.effect))
    return Next(step.name, args, None, step.effect, step.types)


def agrees(plan: Plan, at: int, name: str, args: Mapping[str, Any], effect: str, result: Any) -> str | None:
    """Compare a result with what was recorded; return what is wrong with it, or None."""
    if effect == "pure":
        for course in plan.every:
            for step in course.steps:
                alike = step.name == name and same(dict(step.args), dict(args))
                if alike and not same(step.result, result):
                    return f"step {at} ({name}) answered otherwise than before to the same arguments"
    if at < len(plan.steps) and plan.steps[at].name == name:
        types = plan.steps[at].types
        if type(result).__name__ not in types:
            return f"step {at} ({name}) gave a {type(result).__name__}, and gave {' or '.join(sorted(types))} before"
    return None


def _planned(group: Sequence[Course], at: int) -> Planned:
    steps = [course.steps[at] for course in group]
    args = explain([dict(step.args) for step in steps], [course.known(at) for course in group])
    effects = {step.effect for step in steps}
    worst = next(effect for effect in ("external", "write", "read", "pure") if effect in effects)
    return Planned(steps[0].name, worst, args, frozenset(type(step.result).__name__ for step in steps))


def _questions(group: Sequence[Course]) -> dict[int, Tree]:
    """Return how the questions to models came about, of those that every course asked at the same place."""
    found: dict[int, Tree] = {}
    for number, (_, _, after) in group[0].asked.items():
        if all(number in course.asked and course.asked[number][2] == after for course in group):
            found[number] = explain(
                [dict(course.asked[number][0]) for course in group], [course.known(after) for course in group]
            )
    return found


def _is_on(course: Course, params: Mapping[str, Any], taken: Sequence[Taken], environment: Mapping[str, str]) -> bool:
    shared = course.environment.keys() & environment.keys()
    return (
        len(course.steps) >= len(taken)
        and same(dict(course.params), dict(params))
        and all(course.environment[key] == environment[key] for key in shared)
        and all(
            step.name == one.name and same(step.result, one.result)
            for step, one in zip(course.steps, taken, strict=False)
        )
    )


def _repeated(alive: Sequence[Course], at: int) -> Next:
    first = alive[0]
    for other in alive[1:]:
        ended = (len(first.steps) == at, len(other.steps) == at)
        if ended == (True, True):
            parted = not same(first.output, other.output)
        elif ended == (False, False):
            mine, theirs = first.steps[at], other.steps[at]
            parted = mine.name != theirs.name or not same(dict(mine.args), dict(theirs.args))
            calm = {mine.effect, theirs.effect} <= {"pure", "read"}
            parted = parted and not calm  # they may look elsewhere first; what they do or say must be the same
        else:
            later = other if ended[0] else first
            parted = any(step.effect not in {"pure", "read"} for step in later.steps[at:])
        if parted:
            raise CannotFollow(
                f"executions {first.execution} and {other.execution} knew the same and went different ways"
            )
    if len(first.steps) == at:
        if len(alive) == 1 and not first.looks and first.output is not None:
            raise CannotFollow(
                f"execution {first.execution} looked at nothing, so nothing shows that its answer still holds"
            )
        return Next(None, {}, first.output, literal=True)
    step = first.steps[at]
    return Next(step.name, dict(step.args), None, step.effect, frozenset({type(step.result).__name__}), literal=True)


def _drawn(plan: Plan, params: Mapping[str, Any], results: Sequence[Any]) -> Known:
    """Return what is known now, with the replies that were recorded to questions that would be asked in the same words."""
    replies: dict[int, Any] = {}
    for number, tree in sorted(plan.questions.items()):
        if plan.lead.asked[number][2] > len(results):
            continue
        known = Known(params, results, replies)
        try:
            question = value_of(tree, known, plan.ground, Use(f"question {number}"))
        except CannotFollow:
            continue
        recorded = [
            course.asked[number][1]
            for course in plan.every
            if number in course.asked and same(dict(course.asked[number][0]), question)
        ]
        if recorded and all(same(recorded[0], other) for other in recorded[1:]):
            replies[number] = recorded[0]
    return Known(params, results, replies)


def _counted(group: Sequence[Course], trees: Iterable[Tree]) -> dict[Source, frozenset[int]]:
    """Return the lists whose places are counted by an explanation, and how long each was: of another length they say nothing."""
    lists: set[Source] = set()
    for tree in trees:
        for source in sources(tree):
            for cut, part in enumerate(source.path):
                if isinstance(part, int):
                    lists.add(Source(source.root, source.key, source.path[:cut]))
    found: dict[Source, frozenset[int]] = {}
    for source in lists:
        lengths = set()
        for course in group:
            try:
                lengths.add(len(course.known(len(course.steps)).get(source)))
            except (LookupError, TypeError):
                continue
        found[source] = frozenset(lengths)
    return found


def _check_counts(plan: Plan, known: Known) -> None:
    for source, lengths in plan.counted.items():
        try:
            length = len(known.get(source))
        except (LookupError, TypeError):
            continue  # not there yet, or of another kind: whoever needs it says so
        if length not in lengths:
            raise CannotFollow(f"{source} has {length} items, and had {' or '.join(map(str, sorted(lengths)))}")


def _check_tree(plan: Plan, tree: Tree, known: Known, use: Use) -> None:
    _check_counts(plan, known)
    for hole in holes(tree):
        if hole.ways and all(_is_lost(plan, way) for way in hole.ways):
            raise CannotFollow(f"{use.what} is a model's reply to a question that cannot be put in the same words")
        if not hole.ways:
            raise CannotFollow(f"{use.what} is explained by nothing that was recorded: a model worked it out")
        if all(source.root == "param" for source in sources(hole)):
            value_of(hole, known, plan.ground, _of(use, tree, hole))


def _is_lost(plan: Plan, way: Source | Fixed | Text) -> bool:
    """Tell whether an explanation needs a reply to a question that nothing recorded explains."""
    if isinstance(way, Fixed):
        return False
    if isinstance(way, Text):
        return any(isinstance(part, Hole) and all(_is_lost(plan, one) for one in part.ways) for part in way.parts)
    if way.root != "reply":
        return False
    question = plan.questions.get(int(way.key))
    return question is None or any(not hole.ways for hole in holes(question))


def _of(use: Use, tree: Tree, hole: Hole) -> Use:
    return use if tree is hole else Use(f"a part of {use.what}", use.effect, use.answer, use.changes)
