"""What the examples changed in the world, in order: single uses, and the same uses for each item of a list."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .bank import Entry
from .examples import ToolStep
from .nested import Nested
from .program import Call, CallEach, Const, Expr, ForEach, Op, Ref, refs
from .reading import explained_args
from .rewriting import renamed, rewritten
from .tape import LOOKS

if TYPE_CHECKING:
    from .planning import Plan


def effects_of(plan: "Plan") -> list[list[ToolStep]]:
    """Return the uses that changed something, for each example."""
    return [
        [step for step in example.steps if step.ok and plan.tools.get(step.name, "external") not in LOOKS]
        for example in plan.examples
    ]


def shape_of(steps: Sequence[ToolStep]) -> tuple[str, ...]:
    """Return the names of uses in their order."""
    return tuple(step.name for step in steps)


def explain_effects(plan: "Plan", effects: Sequence[list[ToolStep]]) -> str | None:
    """Add to the plan what changes the world; return None, or what could not be explained."""
    shapes = {shape_of(steps) for steps in effects}
    alike = len(shapes) == 1
    longest = max(map(len, effects))
    if longest == 0:
        return None
    repeats = any(len(set(shape)) < len(shape) for shape in shapes)
    if repeats or not alike:
        found = _with_rounds(plan, effects)
        if found:
            return None
    if not alike:
        return "the examples change the world in different ways, and no list or condition explains which"
    for place in range(longest):
        missing = _single(plan, [steps[place] for steps in effects])
        if missing:
            return missing
    return None


def _single(plan: "Plan", steps: Sequence[ToolStep]) -> str | None:
    args = explained_args(plan, [step.args for step in steps])
    if args is None:
        return f"the arguments of {steps[0].name} (step {_place(plan, steps[0])} of the first example) follow from nothing known"
    for _, value in args:
        plan.reuse(value)
    into = None
    if any(step.result is not None for step in steps):
        into = plan.fresh()
        plan.source(into, [step.result for step in steps])
    plan.body.append(Call(steps[0].name, args, into))
    return None


def _place(plan: "Plan", step: ToolStep) -> int:
    return next((number for number, one in enumerate(plan.examples[0].steps) if one is step), 0)


def _with_rounds(plan: "Plan", effects: Sequence[list[ToolStep]]) -> bool:
    """Find single uses, then a round over a list, then single uses again."""
    plan.bank.grow(5)
    plan.explainer.reached = max(plan.explainer.reached, 5)
    lists = [one for one in plan.bank.of_kind("list") if one.size <= 6 and one.rank in (0, 1, 2, 3)]
    counts = [len(steps) for steps in effects]
    for before in range(3):
        for after in range(3):
            for period in (1, 2, 3):
                inner = [count - before - after for count in counts]
                if min(inner) < 0 or any(count % period for count in inner) or max(inner) < 2 * period:
                    continue
                parts = [steps[before : len(steps) - after] for steps in effects]
                names = {shape_of(part[at : at + period]) for part in parts for at in range(0, len(part), period)}
                if len(names) != 1:
                    continue
                lengths = [count // period for count in inner]
                fitting = [one for one in lists if [len(value) for value in one.values] == lengths]
                for over in sorted(fitting, key=lambda one: (-_named(one, parts, period), one.size))[:10]:
                    if _try_round(plan, effects, over, before, after, period):
                        return True
    return False


def _named(over: Entry, parts: Sequence[list[ToolStep]], period: int) -> int:
    """Count the rounds in which the item is named by what is done."""
    total = 0
    for items, steps in zip(over.values, parts, strict=True):
        for number, item in enumerate(items):
            texts = repr([step.args for step in steps[number * period : number * period + period]])
            known = item.values() if isinstance(item, dict) else item if isinstance(item, list) else [item]
            total += any(str(one) in texts for one in known if not isinstance(one, dict | list) and str(one))
    return total


def _try_round(
    plan: "Plan", effects: Sequence[list[ToolStep]], over: Entry, before: int, after: int, period: int
) -> bool:
    body, sources, made = list(plan.body), list(plan.sources), plan.made
    for place in range(before):
        if _single(plan, [steps[place] for steps in effects]):
            plan.body, plan.sources, plan.made = body, sources, made
            return False
    parts = [steps[before : len(steps) - after] for steps in effects]
    calls: list[Call] = []
    inner = Nested(plan.explainer, over)
    for place in range(period):
        rows = [steps[at + place] for steps in parts for at in range(0, len(steps), period)]
        args = _args(inner, rows)
        if args is None:
            plan.body, plan.sources, plan.made = body, sources, made
            return False
        calls.append(Call(rows[0].name, args, None))
    var = plan.bank.var
    if period == 1 and any(step.result is not None for steps in parts for step in steps):
        into = plan.fresh()
        plan.body.append(CallEach(calls[0].tool, calls[0].args, over.expr, var, into))
        plan.source(into, [[step.result for step in steps] for steps in parts])
    else:
        plan.body.append(_unzipped(ForEach(over.expr, var, tuple(calls))))
    for place in range(after):
        if _single(plan, [steps[len(steps) - after + place] for steps in effects]):
            plan.body, plan.sources, plan.made = body, sources, made
            return False
    return True


def _unzipped(part: ForEach) -> ForEach:
    """Go through two lists side by side where the items are pairs that are only taken apart."""
    if not (isinstance(part.over, Op) and part.over.op == "zipped"):
        return part
    second = f"{part.var}b"
    names = {0: part.var, 1: second}

    def change(one: Any) -> Any:
        if (
            isinstance(one, Op)
            and one.op == "item"
            and one.args[0] == Ref(part.var)
            and one.args[1] in (Const(0), Const(1))
        ):
            return Ref(f"<{one.args[1].value}>")
        return one

    body = rewritten(part.body, change)
    if part.var in refs(body):
        return part
    body = tuple(renamed(one, {f"<{place}>": name for place, name in names.items()}) for one in body)
    return ForEach(part.over.args[0], part.var, body, ((second, part.over.args[1]),))


def _args(inner: Nested, rows: Sequence[ToolStep]) -> tuple[tuple[str, Expr], ...] | None:
    args: list[tuple[str, Expr]] = []
    for name in rows[0].args:
        if any(set(row.args) != set(rows[0].args) for row in rows):
            return None
        values: list[Any] = [row.args[name] for row in rows]
        found = inner.explain(values)
        if found is None:
            return None
        args.append((name, found))
    return tuple(args)
