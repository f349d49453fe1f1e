"""What a fact asks of its items, with every name resolved: the form that both SQL and the stream are made from.

Nodes compare by what they say, so that a reading which twenty facts share is taken once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind = Literal["number", "int", "text", "flag", "list", "nothing"]
"""What a node is worth: float64, int64, a string, a truth value, a list, or always unknown."""


@dataclass(frozen=True, slots=True)
class Const:
    """A value that never changes; None is unknown."""

    value: bool | int | float | str | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the item."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Op:
    """An operator or a scalar function; `in` has the value first and the list after it."""

    name: str
    args: "tuple[Node, ...]"
    kind: Kind


@dataclass(frozen=True, slots=True)
class Frame:
    """The items that an aggregate looks at: the last so many, those of a stretch of time, or all so far, by group."""

    last: int | None
    duration_ns: int | None
    per: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """An aggregate over a frame; `arg` is None for `count()`, which counts items."""

    name: str
    arg: "Node | None"
    frame: Frame
    kind: Kind


Node: TypeAlias = Const | Column | Op | Over


@dataclass(frozen=True, slots=True)
class Condition:
    """A fact ready to run: whose items it looks at, what must be true of one, and what tells its subjects apart.

    `name` is `System.fact`, `case` is `System.Case`. Truth is followed for each run and each value of the `key` fields.
    """

    name: str
    case: str
    body: Node
    key: tuple[str, ...]


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, each time it occurs."""
    left = [node]
    while left:
        here = left.pop()
        yield here
        if isinstance(here, Op):
            left.extend(reversed(here.args))
        elif isinstance(here, Over) and here.arg is not None:
            left.append(here.arg)


def readings(node: Node) -> list[Column | Over]:
    """Return what a condition reads of the trace, in the order written: fields outside of aggregates, and aggregates."""
    found: dict[Column | Over, None] = {}
    left = [node]
    while left:
        here = left.pop()
        if isinstance(here, Column | Over):
            found.setdefault(here)
        elif isinstance(here, Op):
            left.extend(reversed(here.args))
    return list(found)


def text(node: Node) -> str:
    """Return a node as people write it."""
    match node:
        case Const(value=value):
            if value is None or isinstance(value, bool):
                return {None: "null", True: "true", False: "false"}[value]
            return (
                f'"{value}"' if isinstance(value, str) else f"{value:.12g}" if isinstance(value, float) else str(value)
            )
        case Column(name=name):
            return name
        case Over(name=name, arg=arg, frame=frame):
            inner = "" if arg is None else text(arg)
            return f"{name}({inner}) over {_frame_text(frame)}"
        case Op(name=name, args=args):
            parts = [f"({text(arg)})" if isinstance(arg, Op) and _infix(arg.name) else text(arg) for arg in args]
            if name == "in":
                return f"{parts[0]} in [{', '.join(parts[1:])}]"
            if name in ("not", "neg"):
                return f"not {parts[0]}" if name == "not" else f"-{parts[0]}"
            return f" {name} ".join(parts) if _infix(name) else f"{name}({', '.join(parts)})"


def _frame_text(frame: Frame) -> str:
    if frame.last is not None:
        span = f"last {frame.last}"
    elif frame.duration_ns is not None:
        span = _duration_text(frame.duration_ns)
    else:
        span = "all so far"
    return span + (f" per {', '.join(frame.per)}" if frame.per else "")


def _duration_text(ns: int) -> str:
    units = (("h", 3_600_000_000_000), ("min", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000))
    for name, size in units:
        if ns % size == 0 and ns:
            return f"{ns // size} {name}"
    return f"{ns} ns"


def _infix(name: str) -> bool:
    return not name[0].isalpha() or name in ("and", "or", "in", "not", "neg")
