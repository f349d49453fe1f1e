"""Changes of a program's text: small, by place, and without touching a comment that is not inside what goes."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from morphogen.schemas.knowledge.tree import Node, Span

from .errors import ImproveError


@dataclass(frozen=True, slots=True)
class Edit:
    """The characters from `start` to `end` become `text`."""

    start: int
    end: int
    text: str


def apply_edits(source: str, edits: Sequence[Edit]) -> str:
    """Return the text with all edits made. Raises ImproveError where two of them overlap."""
    made: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda one: (one.start, one.end)):
        if edit.start < at:
            raise ImproveError("two changes meet at the same place: make them one after the other")
        made += [source[at : edit.start], edit.text]
        at = edit.end
    return "".join([*made, source[at:]])


def unified_diff(before: str, after: str, path: str) -> str:
    """Return the change as `diff -u` and `git apply` read it."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"a/{path.lstrip('/')}",
        f"b/{path.lstrip('/')}",
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def remove(source: str, node: Node) -> Edit:
    """Return the edit that takes a step or a statement out, with its line where it has it for itself."""
    start, end = node.span.start, _after_separator(source, node.span.end)
    line_start, line_end = _line_start(source, start), _line_end(source, end)
    alone = not source[line_start:start].strip() and not source[end:line_end].strip()
    if not alone:
        return Edit(start, end + _spaces(source, end), "")
    # One of two blank lines that would meet goes as well.
    after = min(line_end + 1, len(source))
    blank_before = not source[_line_start(source, max(line_start - 1, 0)) : line_start].strip()
    blank_after = source[after : _line_end(source, after)].strip() == "" and after < len(source)
    if blank_before and blank_after:
        after = min(_line_end(source, after) + 1, len(source))
    return Edit(line_start, after, "")


def reorder(source: str, before: Sequence[Node], after: Sequence[Node]) -> list[Edit]:
    """Return the edits that put nodes, which follow each other, into another order; their own comments go along.

    A node's own comments are those on the lines right above it and behind it on its last line.
    """
    whole = _own_lines(source, before)
    places = [(node.span.start, node.span.end) for node in before] if whole is None else whole
    texts = {id(node): source[start:end] for node, (start, end) in zip(before, places, strict=True)}
    return [
        Edit(start, end, texts[id(node)])
        for (start, end), old, node in zip(places, before, after, strict=True)
        if old is not node
    ]


def remove_items(source: str, items: Sequence[Node], gone: Sequence[Node]) -> list[Edit]:
    """Return the edits that take items out of a list of several, with the comma of each; comments stay."""
    edits = []
    last_kept = max((index for index, item in enumerate(items) if not any(item is one for one in gone)), default=-1)
    for index, item in enumerate(items):
        if not any(item is one for one in gone):
            continue
        if index < last_kept:
            comma = _comma(source, item.span.end, items[index + 1].span.start)
            after = item.span.end if comma is None else comma + 1
            edits += _cut(source, item.span.end, comma)
            edits.append(Edit(item.span.start, item.span.end, ""))
            if comma is not None and not source[item.span.end : comma].strip():
                edits.append(Edit(after, after + _spaces(source, after), ""))
        else:  # behind the last that stays: the comma before it goes
            edits += _cut(source, items[index - 1].span.end, _comma(source, items[index - 1].span.end, item.span.start))
            before = len(source[: item.span.start].rstrip(" \t"))
            edits.append(Edit(before, item.span.end, ""))
    return edits


def _cut(source: str, floor: int, comma: int | None) -> list[Edit]:
    """Return the edit that takes a comma out, and the spaces before it down to `floor`."""
    if comma is None:
        return []
    before = len(source[floor:comma].rstrip(" \t"))
    return [Edit(floor + before, comma + 1, "")]


def _comma(source: str, start: int, end: int) -> int | None:
    """Return where the comma between two items stands, comments passed over."""
    at = start
    while at < end:
        if source.startswith("/*", at):
            at = source.find("*/", at, end) + 2
        elif source.startswith("//", at) or source[at] == "#":
            at = _line_end(source, at)
        elif source[at] == ",":
            return at
        else:
            at += 1
    return None


def replace_node(node: Node, text: str) -> Edit:
    """Return the edit that puts text in a node's place."""
    return Edit(node.span.start, node.span.end, text)


def place(span: Span, path: str) -> str:
    """Return where something stands, as editors take it."""
    return f"{path}:{span.line}:{span.column}"


def _own_lines(source: str, nodes: Sequence[Node]) -> list[tuple[int, int]] | None:
    """Return each node's stretch of whole lines with its comments; None where two nodes share a line."""
    found: list[tuple[int, int]] = []
    floor = 0
    for node in nodes:
        start, end = _line_start(source, node.span.start), _line_end(source, _after_separator(source, node.span.end))
        tail = source[_after_separator(source, node.span.end) : end].strip()
        if (
            source[start : node.span.start].strip()
            or (tail and not tail.startswith(("//", "#", "/*")))
            or start < floor
        ):
            return None
        while start > floor:
            above = _line_start(source, start - 1)
            if above < floor or not source[above:start].strip().startswith(("//", "#")):
                break
            start = above
        found.append((start, end))
        floor = end + 1
    return found


def _after_separator(source: str, at: int) -> int:
    skip = at + _spaces(source, at)
    return skip + 1 if source[skip : skip + 1] in {",", ";"} else at


def _spaces(source: str, at: int) -> int:
    return len(source[at:]) - len(source[at:].lstrip(" \t"))


def _line_start(source: str, at: int) -> int:
    return source.rfind("\n", 0, at) + 1


def _line_end(source: str, at: int) -> int:
    end = source.find("\n", at)
    return len(source) if end < 0 else end
