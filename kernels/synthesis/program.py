"""The program: a small typed language that a tool is written from. Data only: it can be stored, compared and read back.

A program takes parameters, calls tools, computes with a closed table of pure operations (`operators`), goes through lists,
chooses by predicates, and returns a value. It has no clock, no chance, no state, and no loop without a list.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from .errors import BadProgram

FORMAT = 1


class _Node(msgspec.Struct, frozen=True, tag_field="is", tag=str.lower, omit_defaults=True):
    """A part of a program, told by the field `is`."""


class Const(_Node, frozen=True):
    """A value that stands in the program."""

    value: Any


class Ref(_Node, frozen=True):
    """A parameter, a name bound by a statement, or the variable of a list that is gone through."""

    name: str


class Op(_Node, frozen=True):
    """One operation of the table on its operands."""

    op: str
    args: tuple["Expr", ...] = ()


class Text(_Node, frozen=True):
    """Texts and numbers put together: what Python writes as an f-string."""

    parts: tuple["Expr", ...]


class Shown(_Node, frozen=True):
    """A number as text, by a format specification such as `.3f`."""

    value: "Expr"
    spec: str


class Record(_Node, frozen=True):
    """A mapping with these keys."""

    fields: tuple[tuple[str, "Expr"], ...]


class Listed(_Node, frozen=True):
    """A list of these values."""

    items: tuple["Expr", ...]


class Each(_Node, frozen=True):
    """The list of `value` for each `var` of `over` where `where` holds."""

    over: "Expr"
    var: str
    value: "Expr"
    where: "Expr | None" = None


class Pairs(_Node, frozen=True):
    """The mapping from `key` to `value` for each `var` of `over` where `where` holds; the last of a key counts."""

    over: "Expr"
    var: str
    key: "Expr"
    value: "Expr"
    where: "Expr | None" = None


class Sorted(_Node, frozen=True):
    """The items of `over` in the order of `key`, stable; backwards where `reverse` says so."""

    over: "Expr"
    var: str
    key: "Expr"
    reverse: bool = False


class Pick(_Node, frozen=True):
    """The first item of `over` with the least (`min`) or the greatest (`max`) `key`."""

    which: str
    over: "Expr"
    var: str
    key: "Expr"


class Choice(_Node, frozen=True):
    """`then` where `test` holds, else `other`."""

    test: "Expr"
    then: "Expr"
    other: "Expr"


Expr: TypeAlias = Const | Ref | Op | Text | Shown | Record | Listed | Each | Pairs | Sorted | Pick | Choice


class Let(_Node, frozen=True):
    """Give a value a name."""

    name: str
    value: Expr


class Call(_Node, frozen=True):
    """Use a tool, and give its result a name where it is needed."""

    tool: str
    args: tuple[tuple[str, Expr], ...]
    into: str | None = None


class CallEach(_Node, frozen=True):
    """Use a tool for each `var` of `over`, and give the list of results a name."""

    tool: str
    args: tuple[tuple[str, Expr], ...]
    over: Expr
    var: str
    into: str


class ForEach(_Node, frozen=True):
    """Do `body` for each item of `over`; `beside` goes through further lists of the same length, by variable."""

    over: Expr
    var: str
    body: tuple["Stmt", ...]
    beside: tuple[tuple[str, Expr], ...] = ()


class If(_Node, frozen=True):
    """Do `then` where `test` holds, else `other`."""

    test: Expr
    then: tuple["Stmt", ...]
    other: tuple["Stmt", ...] = ()


class Require(_Node, frozen=True):
    """Refuse, with one line, where `test` does not hold."""

    test: Expr
    message: str


class Return(_Node, frozen=True):
    """Answer with a value."""

    value: Expr


Stmt: TypeAlias = Let | Call | CallEach | ForEach | If | Require | Return


class Param(_Node, frozen=True):
    """What a program takes; `type` is a Python annotation."""

    name: str
    type: str


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parameters, what is done, and the type of what is returned. `retried` names tools that are asked again on an error."""

    params: tuple[Param, ...]
    body: tuple[Stmt, ...]
    returns: str = "object"
    tools: tuple[str, ...] = ()
    retried: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def sha256(self) -> str:
        """The name of its content: `sha256:` of its JSON with the keys in order."""
        return f"sha256:{hashlib.sha256(msgspec.json.encode(self, order='deterministic')).hexdigest()}"


NODES = (Const, Ref, Op, Text, Shown, Record, Listed, Each, Pairs, Sorted, Pick, Choice,
          Let, Call, CallEach, ForEach, If, Require, Return, Param)  # fmt: skip


def to_data(program: Program) -> Any:
    """Return a program as JSON values."""
    return msgspec.to_builtins(program)


def from_data(data: Any) -> Program:
    """Return the program that `to_data` gave; BadProgram where it is none."""
    try:
        program = msgspec.convert(data, Program)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadProgram(f"this is no program: {error}; draft it again") from None
    if program.format != FORMAT:
        raise BadProgram(f"a program of format {program.format}; this version reads format {FORMAT}")
    return program


def walk(node: Any) -> Iterator[Any]:
    """Give every part below a node, itself first, in the order of the text."""
    if isinstance(node, NODES):
        yield node
        for name in node.__struct_fields__:
            if not (isinstance(node, Const) and name == "value"):
                yield from walk(getattr(node, name))
    elif isinstance(node, tuple):
        for part in node:
            yield from walk(part)


def refs(node: Any) -> set[str]:
    """Return every name that is read below a node, bound there or not."""
    return {part.name for part in walk(node) if isinstance(part, Ref)}
