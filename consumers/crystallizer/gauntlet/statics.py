"""The stages that read a text without running it: parse, grammar, types."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import UnsafeTool, check
from morphogen.schemas import CrystalDrafted

from ..annotations import NotAType, Type, fits, infer, parse, read
from ..source import source_sha256
from .constants import of_the_clock
from .stage import Stage

_UNPARSED = ("this is no Python", "the parser gives up", "the tool is no text")


def parsed(draft: CrystalDrafted) -> Stage:
    """Judge whether the text is the one that was hashed, and Python."""
    if draft.source_sha256 != source_sha256(draft.source):
        return Stage("parse", "the text is not the one that was hashed when it was drafted; draft it again")
    try:
        check(draft.source, tools=draft.capabilities)
    except UnsafeTool as refusal:
        if refusal.what.startswith(_UNPARSED):
            return Stage("parse", str(refusal))
    return Stage("parse", evidence={"characters": len(draft.source), "lines": draft.source.count("\n") + 1})


def in_grammar(draft: CrystalDrafted, traces: Sequence[Trace]) -> Stage:
    """Judge whether the text stays in the grammar, with capabilities that the recordings used, and no clock in it."""
    try:
        found = check(draft.source, entry=draft.entry, tools=draft.capabilities)
    except UnsafeTool as refusal:
        return Stage("grammar", str(refusal))
    tree = ast.parse(draft.source)
    used = {step.name for trace in traces for step in trace.tools}
    for name in draft.capabilities:
        if name not in used:
            return Stage("grammar", f"it asks for {name!r}, which no recorded execution used; write it without")
    entries = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == draft.entry]
    arguments = entries[0].args
    if len(entries) != 1 or arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        return Stage("grammar", f"{draft.entry!r} must be one function whose parameters have names; write them out")
    names = [one.name for one in draft.params]
    if sorted(found.functions[draft.entry]) != sorted(names):
        return Stage(
            "grammar",
            f"{draft.entry!r} takes ({', '.join(found.functions[draft.entry])}) and the family has ({', '.join(names)})",
        )
    given = [
        [trace.goal, trace.template, dict(trace.params), [step.result for step in trace.tools if step.effect != "pure"]]
        for trace in traces
    ]
    of_clock = of_the_clock(tree, [trace.at.time_ns for trace in traces], given)
    if of_clock is not None:
        return Stage(
            "grammar",
            f"its text holds {of_clock!r}, which no parameter or answer gives: it is the time of the recordings",
        )
    return Stage("grammar", evidence={"modules": list(found.modules), "capabilities": list(draft.capabilities)})


def typed(draft: CrystalDrafted, traces: Sequence[Trace]) -> Stage:
    """Judge whether what is annotated is what was recorded, for each parameter and for the answer."""
    tree = ast.parse(draft.source)
    entry = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == draft.entry)
    annotated = {one.arg: one.annotation for one in (*entry.args.args, *entry.args.kwonlyargs)}
    evidence: dict[str, Any] = {}
    for param in draft.params:
        try:
            told = parse(param.type)
            kind = _annotation(annotated[param.name], param.name)
        except NotAType as error:
            return Stage("types", f"parameter {param.name!r}: {error}")
        values = [trace.params[param.name] for trace in traces if param.name in trace.params]
        if not values:
            return Stage("types", f"parameter {param.name!r} was never given in a recorded execution")
        for value in values:
            if not fits(kind, value) or not fits(told, value):
                return Stage("types", f"parameter {param.name!r} is {kind}, and was recorded as {repr(value)[:80]}")
        if len(values) < len(traces) and param.name not in _with_default(entry):
            return Stage("types", f"parameter {param.name!r} was not always given, and has no default")
        evidence[param.name] = str(infer(values))
    extra = sorted({name for trace in traces for name in trace.params} - {param.name for param in draft.params})
    if extra:
        return Stage("types", f"the recorded parameter {extra[0]!r} is not taken; take it, even if it changes nothing")
    try:
        returns = _annotation(entry.returns, "what it returns")
        told = parse(draft.returns)
    except NotAType as error:
        return Stage("types", str(error))
    for trace in traces:
        if not fits(returns, trace.output) or not fits(told, trace.output):
            return Stage("types", f"it returns {returns}, and {repr(trace.output)[:80]} was recorded")
    return Stage("types", evidence={"params": evidence, "returns": str(returns)})


def _annotation(node: ast.expr | None, what: str) -> Type:
    if node is None:
        raise NotAType(f"{what} has no annotation; write one")
    return read(node)


def _with_default(entry: ast.FunctionDef) -> set[str]:
    args = entry.args
    placed = args.args[len(args.args) - len(args.defaults) :] if args.defaults else []
    named = [one for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is not None]
    return {one.arg for one in (*placed, *named)}


def constant_world(params: Sequence[Mapping[str, Any]], capabilities: Sequence[str]) -> bool:
    """Tell whether nothing that a tool of these executions could see ever varied."""
    return not capabilities and all(one == params[0] for one in params)
