"""Parts of a program as the text that they were written in: `content: design_space + tuning_space + knowledge`."""

from collections.abc import Iterator

from morphogen.schemas.knowledge import tree

_NAMES = ("design_space", "tuning_space", "knowledge", "model", "trace_schema", "system_model")


def named_sections(expr: tree.Expr) -> list[str] | None:
    """Return the sections that an expression of names and plus signs asks for; None where it is something else."""
    if isinstance(expr, tree.Name):
        return [expr.name] if expr.name in _NAMES else None
    if isinstance(expr, tree.Binary) and expr.op == "+":
        left, right = named_sections(expr.left), named_sections(expr.right)
        return None if left is None or right is None else [*left, *right]
    return None


def section_text(module: tree.Module, text: str, names: list[str]) -> str:
    """Return the source of these sections, in the order asked for, a blank line between declarations."""
    parts = [text[node.span.start : node.span.end] for name in names for node in _nodes(module, name)]
    return "\n\n".join(parts) + "\n"


def _nodes(module: tree.Module, name: str) -> Iterator[tree.Node]:
    if name == "system_model":
        yield from module.models
    for system in module.systems:
        if name in ("design_space", "tuning_space"):
            yield from (space for space in system.spaces if space.kind == name.removesuffix("_space"))
        elif name == "model":
            yield from (*system.types, *system.states)
        elif name == "trace_schema":
            yield from system.variants
        elif name == "knowledge":
            found = (*system.facts, *system.recorded, *system.rules, *system.hints, *system.invariants)
            yield from sorted(found, key=lambda node: node.span.start)
