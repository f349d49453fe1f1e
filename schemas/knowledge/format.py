"""The canonical layout of a text: four blanks a level, an item a line, one blank line between declarations.

Tokens are kept as they are written, and so is every comment at its place; only blanks, line breaks and the separators
that the grammar leaves open are written anew. So the tree cannot change, and a formatted text formats to itself:
whatever decides on the layout is kept by it. Those are the tokens, where comments stand, where one blank line or more
was left, and whether a small group such as `{ a: 1, b: 2 }` was begun on the line of its brace.
"""

import re
from dataclasses import dataclass, field

from .errors import KnowledgeError
from .front_matter import front_matter
from .layout import Group, Layout, Range, layout
from .lines import Lines
from .parse import parse
from .tokens import END, key_of, tokenize

WIDTH = 100
INDENT = "    "
_MOST_ROUNDS = 8

_CLOSE_BEFORE = frozenset({"COMMA", "PER_COMMA", "SEMI", "COLON", "DOT", "INDEX", "RPAR", "RSQB", "QUESTION"})
_CLOSE_AFTER = frozenset({"LPAR", "LSQB", "DOT"})
_MERGED = {"EMIT_TO": "-> emit", "EMIT_ANY": "-> emit", "NOT_IN": "not in"}
_NUMBER = re.compile(r"([0-9_.]+(?:[eE][+-]?[0-9]+)?)\s*(.*)", re.DOTALL)


def format_text(text: str, path: str = "<text>") -> str:
    """Lay a module out canonically.

    Raises KnowledgeError where the text does not parse: what cannot be read is left alone.
    """
    parsed = parse(text, path)
    if not parsed.ok:
        raise KnowledgeError(parsed.diagnostics, text, path)
    for _ in range(_MOST_ROUNDS):
        before, text = text, _laid_out(text)
        if text == before:
            break
    return text


def _laid_out(text: str) -> str:
    """Lay a text out once. A group that is broken for its width may let what follows it stand on one line again."""
    lines = Lines(text)
    front = front_matter(text, lines)
    tokens = tokenize(text, lines, front.end)
    head = [line.rstrip() for line in text[: front.end].lstrip("\ufeff").strip().split("\n")] if front.end > 1 else []
    printer = _Printer(layout(tokens))
    body = printer.module(blank_first=bool(head) and text.startswith(("\n", "\r\n"), front.end))
    return "\n".join([*head, *body]).strip("\n") + "\n" if head or body else ""


@dataclass(slots=True)
class _Comment:
    """A comment, and whether a token or another comment stands before it on its line."""

    text: str
    start: int
    end: int
    trailing: bool

    @property
    def ends_line(self) -> bool:
        """Whether nothing may follow on its line."""
        return not self.text.startswith("/*") or "\n" in self.text


@dataclass(slots=True)
class _Line:
    """Lines under construction."""

    done: list[str] = field(default_factory=list)
    now: str = ""

    def add(self, text: str) -> None:
        """Write on the current line; a text of several lines leaves its last one current."""
        *before, last = (self.now + text).split("\n")
        self.done += before
        self.now = last

    def end(self, indent: int) -> None:
        """Begin a new line."""
        self.done.append(self.now.rstrip())
        self.now = INDENT * indent


class _Printer:
    def __init__(self, found: Layout) -> None:
        self.layout = found
        self.tokens = found.tokens
        self.types = found.tokens.types
        self.out = _Line()
        self.comments = self._comments()
        self.flats: dict[Range, str | None] = {}

    def _comments(self) -> dict[int, list[_Comment]]:
        """Give each comment to the token that it stands before, past separators."""
        tokens = self.tokens
        found: dict[int, list[_Comment]] = {}
        place = 0
        for start, end in tokens.comments:
            while tokens.starts[place] < start and self.types[place] != END:
                place += 1
            at = place
            while at in self.layout.dropped:
                at += 1
            newline = tokens.text.rfind("\n", 0, start) + 1
            before = tokens.text[newline:start].strip()
            text = "\n".join(line.rstrip() for line in tokens.text[start:end].split("\n"))
            found.setdefault(at, []).append(_Comment(text, start, end, bool(before) and place > 0))
        return found

    # A whole file -------------------------------------------------------------------------------------------------

    def module(self, *, blank_first: bool) -> list[str]:
        """Write all declarations, and the comments around them."""
        items = self.layout.items
        end = len(self.types) - 1
        for index, (first, last) in enumerate(items):
            apart = index > 0 and not (self.types[items[index - 1][0]] == self.types[first] == "USE")
            self._lead(first, 0, first_in_block=index == 0, apart=apart)
            self._range(first, last, 0)
        self._lead(end, 0, first_in_block=not items, apart=False)
        lines = [*self.out.done, self.out.now]
        while lines and not lines[0]:
            del lines[0]
        return ["", *lines] if blank_first and lines else lines

    # Lines of a block ---------------------------------------------------------------------------------------------

    def _lead(
        self, place: int, indent: int, *, first_in_block: bool, apart: bool = False, closes: bool = False
    ) -> None:
        """End the line before a token that begins one, with the comments between; leave one blank line at most."""
        inner = indent + 1 if closes else indent
        after = self.tokens.ends[place - 1] if place else 0
        opened, full = first_in_block, False
        for comment in self.comments.pop(place, ()):
            if comment.trailing and not full and self.out.now.strip():
                self.out.add(f"  {comment.text}")
            else:
                self._break(inner, after, comment.start, opened=opened, apart=apart)
                self.out.add(comment.text)
                apart = opened = False
            after, full = comment.end, comment.ends_line
        if closes:
            self.out.end(indent)
        elif self.types[place] == END:
            if not self.out.now.strip():
                self.out.now = ""
        else:
            self._break(indent, after, self.tokens.starts[place], opened=opened, apart=apart)

    def _break(self, indent: int, after: int, start: int, *, opened: bool, apart: bool) -> None:
        blank = apart or (not opened and self.tokens.text.count("\n", after, start) > 1)
        if self.out.done or self.out.now:
            self.out.end(indent)
            if blank:
                self.out.now = ""
                self.out.end(indent)
        else:
            self.out.now = INDENT * indent

    # Stretches of tokens ------------------------------------------------------------------------------------------

    def _range(self, first: int, last: int, indent: int) -> None:
        """Write an item, over several lines where it has to be."""
        breaks = not self._fits(self._head(first, last))
        place = first
        while place <= last:
            if place in self.layout.dropped:
                place += 1
                continue
            if place != first:
                self._between(place, indent, logical=breaks)
            group = self.layout.groups.get(place)
            if group is not None:
                self._group(group, last, indent)
                place = group.close + 1
            elif place in self.layout.conditions:
                place = self._success(place, indent) + 1
            else:
                self.out.add(self._spelled(place))
                place += 1

    def _between(self, place: int, indent: int, *, logical: bool) -> None:
        """Write what stands between a token and the one before it."""
        found = self.comments.pop(place, ())
        for comment in found:
            if comment.trailing and self.out.now.strip():
                self.out.add(f"  {comment.text}" if comment.ends_line else f" {comment.text}")
            else:
                self._continue(indent)
                self.out.add(comment.text)
            if comment.ends_line or not comment.trailing:
                self._continue(indent)
        if found and self.out.now.strip() == "":
            return
        if logical and self.types[place] in {"AND", "OR"}:
            self.out.end(indent + 1)
        else:
            self.out.add(" " if found else self._gap(place))

    def _continue(self, indent: int) -> None:
        if self.out.now.strip():
            self.out.end(indent + 1)

    def _success(self, place: int, indent: int) -> int:
        """Write `success:` and its conditions, one a line where they do not fit on one."""
        items = self.layout.conditions[place]
        last = items[-1][1]
        self.out.add(self._spelled(place))
        several = not self._fits(self._flat(place, last))
        for index, (first, end) in enumerate(items):
            if several:
                if index:
                    self.out.add(",")
                self._lead(first, indent + 1, first_in_block=True)
            elif index:
                self.out.add(", ")
            else:
                self.out.add(" ")
            self._range(first, end, indent + 1 if several else indent)
        return last

    # Groups -------------------------------------------------------------------------------------------------------

    def _group(self, group: Group, last: int, indent: int) -> None:
        """Write a group on the line, or an item a line."""
        flat = self._flat_group(group)
        if flat is not None and self._fits(flat + self._tail(group.close + 1, last)):
            self.out.add(flat)
            return
        self.out.add(self._spelled(group.open))
        for index, (first, end) in enumerate(group.items):
            self._lead(first, indent + 1, first_in_block=index == 0)
            self._range(first, end, indent + 1)
            self.out.add(group.ending)
        if group.items or group.close in self.comments:
            self._lead(group.close, indent, first_in_block=not group.items, closes=True)
        self.out.add(self._spelled(group.close))

    def _flat_group(self, group: Group) -> str | None:
        """Write a group on one line; None where it has to have several."""
        opening, closing = self._spelled(group.open), self._spelled(group.close)
        if group.close in self.comments:
            return None
        if not group.items:
            return opening + closing
        if group.style == "block" or (group.style == "soft" and self._was_broken(group)):
            return None
        written = []
        for first, last in group.items:
            flat = None if first in self.comments else self._flat(first, last)
            if flat is None:
                return None
            written.append(flat)
        inside = ", ".join(written)
        return f"{opening} {inside} {closing}" if opening == "{" else opening + inside + closing

    def _was_broken(self, group: Group) -> bool:
        tokens = self.tokens
        return "\n" in tokens.text[tokens.ends[group.open] : tokens.starts[group.items[0][0]]]

    def _flat(self, first: int, last: int) -> str | None:
        """Write a stretch on one line; None where it cannot be."""
        key = (first, last)
        if key not in self.flats:
            self.flats[key] = self._flattened(first, last)
        return self.flats[key]

    def _flattened(self, first: int, last: int) -> str | None:
        written: list[str] = []
        place = first
        while place <= last:
            if place in self.layout.dropped:
                place += 1
                continue
            if place != first:
                if place in self.comments:
                    return None
                written.append(self._gap(place))
            group = self.layout.groups.get(place)
            if group is not None:
                flat = self._flat_group(group)
                place = group.close
            elif place in self.layout.conditions:
                items = self.layout.conditions[place]
                parts = [None if item[0] in self.comments else self._flat(*item) for item in items]
                whole = [part for part in parts if part is not None]
                flat = f"{self._spelled(place)} {', '.join(whole)}" if len(whole) == len(parts) else None
                place = items[-1][1]
            else:
                flat = self._spelled(place)
            if flat is None or "\n" in flat:
                return None
            written.append(flat)
            place += 1
        return "".join(written)

    def _head(self, first: int, last: int) -> str:
        """Write a stretch up to the first group that has to be of several lines, its opening token included."""
        written: list[str] = []
        place = first
        while place <= last:
            if place in self.layout.dropped:
                place += 1
                continue
            if place != first:
                written.append(self._gap(place))
            group = self.layout.groups.get(place)
            flat = self._spelled(place) if group is None else self._flat_group(group)
            if flat is None:
                return "".join([*written, self._spelled(place)])
            written.append(flat)
            if "\n" in flat:
                break
            place = place + 1 if group is None else group.close + 1
        return "".join(written)

    def _tail(self, place: int, last: int) -> str:
        """Write what follows a group on its line at the least: up to the next group, its opening token included."""
        written: list[str] = []
        while place <= last:
            if place in self.comments:
                break
            if place not in self.layout.dropped:
                written += [self._gap(place), self._spelled(place)]
                if place in self.layout.groups or self.types[place] in {"AND", "OR"}:
                    break
            place += 1
        return "".join(written)

    def _fits(self, text: str | None) -> bool:
        return text is not None and len(self.out.now) + len(text.split("\n", 1)[0]) <= WIDTH

    # Tokens -------------------------------------------------------------------------------------------------------

    def _spelled(self, place: int) -> str:
        kind = self.types[place]
        text = self.tokens.spelling(place)
        if kind in {"KEY", "SUCCESS"}:
            return key_of(text) + ":"
        if kind == "QUANTITY":
            found = _NUMBER.fullmatch(text)
            assert found is not None
            close = found[2] == "%" or (place > 0 and self.types[place - 1] == "OVER")
            return f"{found[1]}{'' if close else ' '}{found[2]}"
        return _MERGED.get(kind) or text.replace("\r\n", "\n")

    def _gap(self, place: int) -> str:
        """Return the blank, or nothing, that stands between a token and the one before it on a line."""
        before = place - 1
        while before in self.layout.dropped:
            before -= 1
        kind, kind_before = self.types[place], self.types[before]
        if kind in _CLOSE_BEFORE or kind_before in _CLOSE_AFTER:
            return ""
        if place in self.layout.close_before or before in self.layout.close_after:
            return ""
        return " "
