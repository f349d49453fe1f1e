"""Brackets that do not match: find which one is to blame, say so, and make them match so that the rest can be read.

Counting alone blames the wrong one: a missing `}` shows at the end of the file. So where the count says that some are
missing, the layout says which: what stands no further right than the line that opened a block is not inside it.
"""

import re

from .diagnostics import Diagnostic
from .tokens import CLOSER, END, MAX_DEPTH, SOFT, Tokens

_OPENER = {closer: opener for opener, closer in CLOSER.items()}
_SPELLED = {"LBRACE": "{", "RBRACE": "}", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]"}
_OPERANDS = frozenset({"NAME", "STRING", "INT", "FLOAT", "QUANTITY", "TRUE", "FALSE", "NULL", *_OPENER})
_MOST = 100  # diagnostics
_BLANKS = re.compile(r"[ \t]*")


def balance(tokens: Tokens) -> tuple[list[Diagnostic], int]:
    """Make all brackets match, in place.

    Returns what was wrong, and the offset from which on further errors would be mere echoes (beyond the end of the text
    where there is none such).
    """
    missing, extra, loose = _count(tokens)
    repair = _Repair(tokens, missing, extra, loose=loose)
    repair.run()
    return repair.problems[:_MOST], repair.cut


def _count(tokens: Tokens) -> tuple[int, int, bool]:
    """Count the braces that are never closed and the closing ones that close nothing; tell if `(` or `[` are amiss."""
    stack: list[str] = []
    extra, loose = 0, False
    for kind in tokens.types:
        if kind in CLOSER:
            stack.append(kind)
        elif kind == "RBRACE":
            while stack and stack[-1] != "LBRACE":
                stack.pop()
                loose = True
            if stack:
                stack.pop()
            else:
                extra += 1
        elif kind in _OPENER:
            if stack and stack[-1] == _OPENER[kind]:
                stack.pop()
            else:
                loose = True
    return stack.count("LBRACE"), extra, loose or len(stack) > stack.count("LBRACE")


class _Repair:
    """One pass over the tokens that writes them anew, with brackets added and left out."""

    def __init__(self, tokens: Tokens, missing: int, extra: int, *, loose: bool) -> None:
        self.tokens = tokens
        self.missing = missing
        self.extra = extra
        self.loose = loose
        self.problems: list[Diagnostic] = []
        self.cut = tokens.echoes
        self.open: list[tuple[str, int, int]] = []  # kind, place, indentation of its line
        self.places: list[int] = []  # the tokens kept; -1 - place is a bracket that closes the one at that place

    def run(self) -> None:
        types = self.tokens.types
        for place, kind in enumerate(types):
            if kind == END:
                break
            if self.missing or self.loose:
                self._close_what_ended(place, kind)
            if kind in CLOSER:
                if len(self.open) == MAX_DEPTH:
                    self._too_deep(place)
                    break
                self.open.append((kind, place, self._indent(place)))
            elif kind in _OPENER and not self._closes(place, kind):
                continue
            self.places.append(place)
        while self.open:
            self._close_missing()
        self._write()

    def _close_what_ended(self, place: int, kind: str) -> None:
        """Close the brackets that this token cannot be inside of, going by the layout."""
        begins_line = self.tokens.first_on_line(place)
        item = (
            kind == "KEY"
            or kind in SOFT
            or (kind == "NAME" and place > 0 and self.tokens.types[place - 1] in _OPERANDS)
        )
        while self.open:
            opener, opened, indent = self.open[-1]
            if opener != "LBRACE":
                if not (self.loose and (kind in {"RBRACE", "LBRACE"} or (item and begins_line))):
                    return
                if kind == "LBRACE" and not (opener == "LPAR" and self._parameters(opened)):
                    return
            elif not (self.missing and begins_line and self._outside(place, kind, opened, indent)):
                return
            else:
                self.missing -= 1
            self._close_missing()

    def _outside(self, place: int, kind: str, opened: int, indent: int) -> bool:
        """Tell whether a token at the beginning of its line stands outside a brace, by its column."""
        column = self._indent(place)
        if self.tokens.lines.line(self.tokens.starts[opened]) == self.tokens.lines.line(self.tokens.starts[place]):
            return False
        return column < indent if kind == "RBRACE" else column <= indent and (kind == "KEY" or kind in SOFT)

    def _parameters(self, opened: int) -> bool:
        """Tell whether a parenthesis opens the parameters of a declaration: a name, and a keyword before that."""
        types = self.tokens.types
        return opened > 1 and types[opened - 2] in {"FACT", "FUNCTION", "PROCEDURE", "ON"}

    def _closes(self, place: int, kind: str) -> bool:
        """Close the bracket that a closing one belongs to; False if it belongs to none and is left out."""
        tokens = self.tokens
        opener = _OPENER[kind]
        if kind == "RBRACE":
            while self.open and self.open[-1][0] != "LBRACE":
                self._close_missing()
            stray = not self.open
            if self.open and self.extra and tokens.first_on_line(place) and self._indent(place) > self.open[-1][2]:
                stray = True
                self.extra -= 1
        else:
            depth = next((at for at, one in enumerate(reversed(self.open)) if one[0] in {opener, "LBRACE"}), None)
            stray = depth is None or self.open[-1 - depth][0] != opener
            if depth and not stray:
                for _ in range(depth):
                    self._close_missing()
        if stray:
            self._report("unmatched-bracket", place, f"this `{_SPELLED[kind]}` closes nothing")
            return False
        self.open.pop()
        return True

    def _close_missing(self) -> None:
        kind, opened, _ = self.open.pop()
        self.places.append(-1 - opened)
        if self.tokens.starts[opened] < self.cut and self.tokens.swallowed is None:
            self._report("unclosed-bracket", opened, f"this `{_SPELLED[kind]}` is never closed")

    def _too_deep(self, place: int) -> None:
        self._report("nested-too-deep", place, f"brackets are nested deeper than {MAX_DEPTH}")
        self.cut = self.tokens.starts[place]
        opened = [-1 - one[1] for one in reversed(self.open)]
        self.places += opened
        self.open.clear()

    def _report(self, code: str, place: int, message: str) -> None:
        start, end = self.tokens.starts[place], self.tokens.ends[place]
        if len(self.problems) < _MOST:
            self.problems.append(Diagnostic(code, "error", self.tokens.lines.span(start, end), message))

    def _indent(self, place: int) -> int:
        begin = self.tokens.lines.begin(self.tokens.starts[place])
        blanks = _BLANKS.match(self.tokens.text, begin)
        return len(blanks[0].expandtabs(4)) if blanks else 0

    def _write(self) -> None:
        tokens = self.tokens
        types, starts, ends = tokens.types, tokens.starts, tokens.ends
        made: tuple[list[str], list[int], list[int]] = ([], [], [])
        before = 0
        for place in self.places:
            if place >= 0:
                made[0].append(types[place])
                made[1].append(starts[place])
                made[2].append(ends[place])
                before = ends[place]
            else:
                made[0].append(CLOSER[types[-1 - place]])
                made[1].append(before)
                made[2].append(before)
        last = starts[-1]
        types[:], starts[:], ends[:] = [*made[0], END], [*made[1], last], [*made[2], last]
