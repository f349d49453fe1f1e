"""Who reads what, who writes what: the names inside statements, and whether a step only looks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

from morphogen.schemas.knowledge.tools import Signature
from morphogen.schemas.knowledge.tree import Action, Assign, Emit, For, If, Literal, Name, Node, Return, Statement, Step

ASKS = "llm.query"
_LOOKS = frozenset({"pure", "read"})


def nodes(node: object, without: Sequence[Node] = ()) -> Iterator[Node]:
    """Yield a node and all nodes inside it, in the order written, except what is inside of `without`."""
    if any(node is one for one in without):
        return
    if isinstance(node, Node):
        yield node
    if isinstance(node, tuple):
        for one in node:
            yield from nodes(one, without)
    elif is_dataclass(node) and not isinstance(node, type):
        for part in fields(node):
            if part.name != "span":
                yield from nodes(getattr(node, part.name), without)


def read_names(node: object) -> set[str]:
    """Return every bare name that stands in a node: variables, and what may be one."""
    return {one.name for one in nodes(node) if isinstance(one, Name)}


def written_names(node: object) -> set[str]:
    """Return every variable that a node gives a value."""
    found: set[str] = set()
    for one in nodes(node):
        if isinstance(one, Action) and one.output is not None:
            found.add(one.output)
        elif isinstance(one, Assign | For):
            found.add(one.name)
    return found


def only_looks(step: Step, signatures: Mapping[str, Signature]) -> bool:
    """Tell whether a step changes nothing but its own variables: it reads, computes, or asks a model."""
    return all(_statement_looks(one, signatures) for one in step.body)


def asks_model(step: Step) -> bool:
    """Tell whether a step asks a model, which takes time and may cost money."""
    return any(isinstance(one, Action) and one.name == ASKS for one in nodes(step))


def independent(first: Step, second: Step) -> bool:
    """Tell whether two steps could stand in either order: neither reads or writes what the other writes."""
    first_writes, second_writes = written_names(first), written_names(second)
    return not (
        first_writes & (read_names(second) | second_writes) or second_writes & (read_names(first) | first_writes)
    )


def _statement_looks(statement: Statement, signatures: Mapping[str, Signature]) -> bool:
    match statement:
        case Action(name=name, emit=emit):
            if emit is not None:
                return False
            known = signatures.get(name)
            return name == ASKS or (known is not None and known.effect in _LOOKS)
        case Assign():
            return True
        case If(then=then, otherwise=otherwise):
            return all(_statement_looks(one, signatures) for one in (*then, *otherwise))
        case For(body=body):
            return all(_statement_looks(one, signatures) for one in body)
        case Emit() | Return():
            return False


def mentions(node: object, names: set[str], without: Sequence[Node] = ()) -> bool:
    """Tell whether any of the names stands in the node, as a name or as a plain text that may be one."""
    for one in nodes(node, without):
        if isinstance(one, Name) and one.name in names:
            return True
        if isinstance(one, Literal) and isinstance(one.value, str) and one.value in names:
            return True
    return False
