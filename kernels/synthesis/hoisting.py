"""Gives names to what is computed twice, or would make a line too long: a program that people read has short lines."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .operators import TABLE
from .phrases import closed
from .program import (
    Call,
    CallEach,
    Choice,
    Const,
    Each,
    Expr,
    ForEach,
    If,
    Let,
    Op,
    Pairs,
    Pick,
    Program,
    Record,
    Ref,
    Return,
    Shown,
    Sorted,
    Stmt,
    Text,
    walk,
)
from .rewriting import rewritten

_NAMES = {
    "csv": "rows", "csv_by": "rows", "csv_cells": "cells", "json": "data", "lines": "lines", "options": "options", "sum": "total",
    "len": "count", "mean": "average", "fmean": "average", "smean": "average", "median": "middle", "min": "lowest", "max": "highest",
    "take": "first", "take_last": "last", "date_add": "day", "deep_merge": "merged", "merge": "merged", "counted": "counts",
    "sub": "difference", "found": "numbers", "joined": "joined", "zipped": "pairs", "numbered": "pairs", "sorted": "ordered",
    "words": "words", "split": "parts", "short": "shown", "sorted_set": "names", "unique": "names",
}  # fmt: skip
_SOURCES = frozenset({"csv", "csv_by", "json", "lines", "options", "zipped"})


def with_names(program: Program, taken: set[str], too_long: Callable[[Stmt], bool]) -> Program:
    """Return the same program with names for what is used twice, and for parts of long lines."""
    body = _block(list(program.body), {param.name for param in program.params}, set(taken), too_long)
    return msgspec.structs.replace(program, body=tuple(body))


def _block(body: list[Stmt], known: set[str], taken: set[str], too_long: Callable[[Stmt], bool]) -> list[Stmt]:
    names = set(known)
    done: list[Stmt] = []
    left = list(body)
    while left:
        part = left[0]
        shared = _repeated(left, names) or (_longest(part, names) if too_long(part) else None)
        if shared is not None:
            name = _fresh(_name(shared), taken)
            taken.add(name)
            names.add(name)
            left = [Let(name, shared), *(rewritten(one, _exchange(shared, Ref(name))) for one in left)]
            continue
        left.pop(0)
        if isinstance(part, If):
            part = If(
                part.test, *(tuple(_block(list(side), names, taken, too_long)) for side in (part.then, part.other))
            )
        names |= {part.name} if isinstance(part, Let) else set()
        names |= {part.into} if isinstance(part, Call | CallEach) and part.into is not None else set()
        done.append(part)
    return done


def _exchange(old: Expr, new: Expr) -> Callable[[Any], Any]:
    return lambda part: new if type(part) is type(old) and part == old else part


def _worth(node: Any) -> bool:
    return isinstance(node, Op | Each | Pairs | Sorted | Pick | Text) and not (
        isinstance(node, Op) and all(isinstance(part, Const) for part in node.args)
    )


def _certain(node: Any) -> list[Any]:
    """Return the parts of a statement that are computed whatever the values are."""
    if isinstance(node, Choice):
        return [node, *_certain(node.test)]
    if isinstance(node, Op) and node.op in ("and", "or"):
        return [node, *_certain(node.args[0])]
    if isinstance(node, Each | Pairs | Sorted | Pick):
        return [node, *_certain(node.over)]
    if isinstance(node, CallEach):
        return [node, *_certain(node.over)]
    if isinstance(node, ForEach):
        return [node, *_certain(node.over), *(one for _, value in node.beside for one in _certain(value))]
    if isinstance(node, If):
        return [node, *_certain(node.test)]
    if isinstance(node, tuple):
        return [one for part in node for one in _certain(part)]
    if isinstance(node, Const | Ref) or not hasattr(node, "__struct_fields__"):
        return [node]
    return [node, *(one for name in node.__struct_fields__ for one in _certain(getattr(node, name)))]


def _repeated(left: Sequence[Stmt], names: set[str]) -> Expr | None:
    """Return the largest expression of the first statement that is computed for certain and stands there or later again."""
    first = [one for one in _certain(left[0]) if _worth(one) and closed(one, names)]
    sources = [
        one
        for one in walk(left[0])
        if isinstance(one, Op) and one.op in _SOURCES and closed(one, names) and one not in first
    ]
    everything = [one for part in left for one in walk(part) if _worth(one)]
    best: Expr | None = None
    for one in [*first, *sources]:
        times = sum(type(other) is type(one) and other == one for other in everything)
        doubled = any(
            isinstance(other, Op) and TABLE[other.op].repeats and any(part == one for part in other.args)
            for other in everything
        )
        if times > 1 or doubled:
            if isinstance(one, Op) and one.op in _SOURCES:
                return one  # what is read apart is named before what is made of it
            if best is None or _size(one) > _size(best):
                best = one
    return best


def _size(node: Any) -> int:
    return sum(1 for _ in walk(node))


def _longest(part: Stmt, names: set[str]) -> Expr | None:
    """Return the largest part of a long statement that can be named: not all of it, and not nearly nothing."""
    whole = getattr(part, "value", None) or getattr(part, "test", None)
    found = [
        one for one in _certain(part)
        if _worth(one) and one != whole and closed(one, names) and _size(one) >= 3 and not isinstance(one, Shown | Record)
    ]  # fmt: skip
    if isinstance(part, Return) and isinstance(whole, Record):
        found = [one for one in found if _size(one) >= 8]
    if isinstance(part, Let) and isinstance(whole, Each | Sorted | Pick):
        found = [one for one in found if one != whole]
    return max(found, key=_size, default=None)


def _name(node: Expr) -> str:
    if isinstance(node, Op):
        if node.op == "item" and isinstance(node.args[1], Const) and isinstance(node.args[1].value, str):
            key = "".join(
                char if char.isalnum() and char.isascii() else "_" for char in node.args[1].value.lower()
            ).strip("_")
            return key if key and key[0].isalpha() and len(key) <= 30 else "value"
        if node.op in ("item", "round_to", "round", "float", "int", "abs"):
            return _name(node.args[0]) if isinstance(node.args[0], Op | Each | Pick) and node.op != "item" else "value"
        return _NAMES.get(node.op, "value")
    if isinstance(node, Each):
        return "kept" if isinstance(node.value, Ref) else "values"
    if isinstance(node, Sorted):
        return "ordered"
    if isinstance(node, Pick):
        return {"min": "least", "max": "most"}[node.which]
    return "text" if isinstance(node, Text) else "values"


def _fresh(name: str, taken: set[str]) -> str:
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}{number}"
    return found
