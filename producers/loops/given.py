"""The values that a run is begun with, held to what its program declares before anything is done."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from morphogen.schemas.knowledge.diagnostics import did_you_mean
from morphogen.schemas.knowledge.tree import Action, Assign, For, Name, StateDecl
from morphogen.schemas.knowledge.types import problem_of, resolve

from .errors import BadValue

if TYPE_CHECKING:
    from morphogen.schemas.knowledge.program import Program


def states_of(program: "Program", system: str | None) -> dict[str, StateDecl]:
    """Return the states that a loop of a system has, by the names that it calls them."""
    prefix = f"{system}." if system else ""
    return {name.removeprefix(prefix): one for name, one in program.states.items() if name.startswith(prefix)}


def hold_values(program: "Program", system: str | None, values: Mapping[str, Any]) -> None:
    """Raise BadValue for a name that the program nowhere says, and for a value that is not of its state's type."""
    if not values:
        return
    states = states_of(program, system)
    said = {name for module in (program.module, *program.used_modules.values()) for name in _names(module)}
    for name, value in values.items():
        if name not in states:
            if name not in said:
                hint = did_you_mean(name, [*states, *sorted(said)]) or f"its states are {', '.join(states) or 'none'}"
                raise BadValue(f"the program says nowhere `{name}`, which was to be set; {hint}")
            continue
        wanted = resolve(states[name].type, program.types.get)
        problem = None if wanted is None else problem_of(value, wanted)
        if wanted is not None and problem is not None:
            hint = f"""; a text is written {name}='"{value}"'""" if wanted.kind == "string" else ""
            raise BadValue(f"state `{name}` cannot begin so: it {problem}{hint}")


def _names(node: Any) -> Iterator[str]:
    """Yield the names of variables at and below a part of a program."""
    if isinstance(node, Name | Assign | For):
        yield node.name
    if isinstance(node, Action) and node.output is not None:
        yield node.output
    for each in fields(node):
        value = getattr(node, each.name)
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner) and not isinstance(inner, type):
                yield from _names(inner)
