"""Text to tokens: one compiled pattern, and the few places where a word's neighbours say what it is.

Tokens are columns (types, starts, ends), not objects: a parser reads ten thousand lines of them in a second that way.
"""

import re
from dataclasses import dataclass, field

from .diagnostics import Diagnostic, did_you_mean
from .keywords import KEYWORDS
from .lines import Lines
from .units import UNITS

END = "$END"
MAX_DEPTH = 100

_WORD = r"[^\W\d]\w*"

# Durations of windows may also be written short.
_UNITS = "|".join(re.escape(unit) for unit in sorted({*UNITS, "m", "d"} - {"%"}, key=len, reverse=True))

# Where a unit's spelling is no unit: before a colon it is a key, before a parenthesis a function, before a dot or a
# single `=` a variable. A percent sign is one right behind its number, unless what to divide by stands right behind it.
_UNIT = (
    rf"(?:[ \t]*(?:{_UNITS})(?!\w)(?!\s*(?:[:(.]|=(?!=)))"
    r"|%(?![\w(\[\"'.-]))"
)

_TOKEN = re.compile(
    rf"""\s*+(?:
      (?P<KEY>{_WORD}\s*:)
    | (?P<WORD>{_WORD})
    | (?P<INDEX>(?<=\.)[0-9]+(?![\w]))
    | (?P<QUANTITY>[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?{_UNIT})
    | (?P<FLOAT>[0-9][0-9_]*(?:\.[0-9][0-9_]*(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))
    | (?P<INT>[0-9][0-9_]*)
    | (?P<TRIPLE>"{{3}}(?:[^"\\]++|\\[\s\S]|"(?!""))*+"{{3}}|'{{3}}(?:[^'\\]++|\\[\s\S]|'(?!''))*+'{{3}})
    | (?P<OPEN_TRIPLE>"{{3}}|'{{3}})
    | (?P<STRING>"(?:[^"\\\n]++|\\[^\n])*+"|'(?:[^'\\\n]++|\\[^\n])*+')
    | (?P<OPEN_STRING>["'][^\n]*)
    | (?P<COMMENT>//[^\n]*|\#[^\n]*|/\*(?:[^*]++|\*(?!/))*+\*/)
    | (?P<OPEN_COMMENT>/\*)
    | (?P<MARK>->|&&|\|\||[=!<>]=|[{{}}()\[\],;:=<>+\-*/%.|?!])
    | (?P<REST>\Z)
    | (?P<BAD>[^\w\s{{}}()\[\],;:=<>+\-*/%.|?!"'\#&]+|\S)
    )""",
    re.VERBOSE,
)

_MARKS = {
    "{": "LBRACE",
    "}": "RBRACE",
    "(": "LPAR",
    ")": "RPAR",
    "[": "LSQB",
    "]": "RSQB",
    ",": "COMMA",
    ";": "SEMI",
    ":": "COLON",
    ".": "DOT",
    "=": "EQUALS",
    "->": "ARROW",
    "|": "BAR",
    "?": "QUESTION",
    "-": "MINUS",
    "+": "PLUS",
    "*": "MULTIPLY",
    "/": "MULTIPLY",
    "%": "MULTIPLY",
    "&&": "AND",
    "||": "OR",
    "!": "NOT",
} | dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), "COMPARE")

_KEYWORDS = {word: word.upper() for word in KEYWORDS}
SOFT = dict.fromkeys(_KEYWORDS.values(), "NAME") | {"RETURN_NOTHING": "RETURN", "SUCCESS": "KEY"}
CLOSER = {"LBRACE": "RBRACE", "LPAR": "RPAR", "LSQB": "RSQB"}

_GAP = r"(?:\s++|//[^\n]*+|\#[^\n]*+|/\*(?:[^*]++|\*(?!/))*+\*/)*+"  # what may stand between two tokens: comments, too
_BLANK = re.compile(_GAP)
_NAMES_AFTER = re.compile(rf"{_GAP}(?:=(?!=)|\.)")
_STATEMENT = re.compile(rf"(?:if|for|emit|return)\b(?!{_GAP}[=.])")
_ACTION_OR_ASSIGNMENT = re.compile(rf"(?!not\b){_WORD}(?:{_GAP}\.{_GAP}{_WORD})*+{_GAP}(?:=(?!=)|\{{)")
_CASE_AFTER = re.compile(rf"[ \t]*({_WORD})(?!\w|{_GAP}(?::|=(?!=)))")
_SECOND_GROUP = re.compile(rf"{_GAP}(?!(?:parameter|step|check|state)\s+\w){_WORD}(?!\w|{_GAP}(?:[:(\[.]|=(?!=)))")


@dataclass(slots=True)
class Tokens:
    """The tokens of a text, in columns, closed by one of type `$END`; and what was wrong with its characters."""

    text: str
    lines: Lines
    types: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    comments: list[tuple[int, int]] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    balanced: bool = True  # every bracket has its partner, and not too many stand within each other
    swallowed: int | None = None  # where a string or a comment begins that runs to the end, for want of its closing

    @property
    def echoes(self) -> int:
        """The offset from which on errors are mere echoes of one that is told; behind all where there is none such."""
        return len(self.text) + 1 if self.swallowed is None else self.swallowed

    def spelling(self, place: int) -> str:
        """Return a token as it stands in the text."""
        return self.text[self.starts[place] : self.ends[place]]

    def first_on_line(self, place: int) -> bool:
        """Tell whether no other token stands before one on its line."""
        return place == 0 or "\n" in self.text[self.ends[place - 1] : self.starts[place]]

    def report(self, code: str, start: int, end: int, message: str, hint: str | None = None) -> None:
        """Note an error at a stretch of the text."""
        self.diagnostics.append(Diagnostic(code, "error", self.lines.span(start, end), message, (), hint))


def tokenize(text: str, lines: Lines, begin: int = 0, end: int | None = None) -> Tokens:
    """Cut a stretch of text into tokens."""
    end = len(text) if end is None else end
    tokens = Tokens(text, lines)
    types, starts, ends = tokens.types, tokens.starts, tokens.ends
    brackets: list[str] = []
    keywords, marks = _KEYWORDS, _MARKS
    place = begin
    while True:  # one round, and one more after each stretch that the pattern must not read
        resume = None
        for match in _TOKEN.finditer(text, place, end):
            kind = match.lastgroup
            start, stop = match.span(match.lastindex)  # type: ignore[arg-type]
            if kind == "KEY":
                types.append("SUCCESS" if text.startswith("success", start) and _is_success(text, start) else "KEY")
            elif kind == "WORD":
                word = text[start:stop]
                known = keywords.get(word)
                types.append("NAME" if known is None else _keyword(known, text, stop, end, types))
                if types[-1] in _MERGED:
                    _merge(tokens, start, stop)
                    continue
            elif kind == "MARK":
                mark = marks[text[start:stop]]
                if mark == "COLON" and types and types[-1] in _BEFORE_COLON:
                    # A string, or a name with a comment before its colon.
                    types[-1] = "SUCCESS" if tokens.spelling(-1) == "success" else "KEY"
                    ends[-1] = stop
                    continue
                if mark in CLOSER:
                    brackets.append(CLOSER[mark])
                    if len(brackets) > MAX_DEPTH:
                        tokens.balanced = False
                elif mark in _CLOSERS:
                    if not brackets or brackets.pop() != mark:
                        tokens.balanced = False
                elif mark == "COMMA" and _parts_groups(text, stop, end, types):
                    mark = "PER_COMMA"
                types.append(mark)
            elif kind in {"STRING", "TRIPLE"}:
                types.append("STRING")
            elif kind == "REST":  # blanks at the end; without a match for them, each would be tried as a beginning
                break
            elif kind == "COMMENT":
                tokens.comments.append((start, stop))
                continue
            elif kind in _FAULTS:
                resume = _fault(tokens, kind, start, stop, end)
                if resume is None:
                    continue
                break
            else:
                types.append(kind)  # type: ignore[arg-type]
            starts.append(start)
            ends.append(stop)
        if resume is None:
            break
        place = resume
    if brackets:
        tokens.balanced = False
    types.append(END)
    starts.append(end)
    ends.append(end)
    return tokens


def key_of(raw: str) -> str:
    """Return the name that a KEY token begins with, as it is spelled: neither its colon nor a comment before that."""
    match = _TOKEN.match(raw)
    if match is not None and match.lastgroup in {"STRING", "TRIPLE"}:
        return match[match.lastgroup]
    found = _NAME.match(raw)
    return found[0] if found else raw


_NAME = re.compile(r"\w+")
_CLOSERS = frozenset(CLOSER.values())
_CONSTANTS = frozenset({"TRUE", "FALSE", "NULL"})
_GROUPING = frozenset({"PER", "PER_COMMA"})
_MERGED = frozenset({"EMIT_TO", "EMIT_ANY", "NOT_IN"})
_BEFORE_COLON = frozenset({"STRING", "NAME", "INT", *_KEYWORDS.values()})
_FAULTS = frozenset({"OPEN_TRIPLE", "OPEN_STRING", "OPEN_COMMENT", "BAD"})
_STATEMENT_WORDS = frozenset({"step", "check", "evaluation", "if", "else", "for", "emit", "return", "success"})


def _parts_groups(text: str, stop: int, end: int, types: list[str]) -> bool:
    """Tell whether a comma stands between the names of `per a, b`, and not behind the item that ends with them."""
    grouping = len(types) > 1 and types[-2] in _GROUPING and (types[-1] == "NAME" or types[-1] in SOFT)
    return grouping and _SECOND_GROUP.match(text, stop, end) is not None


def _is_success(text: str, start: int) -> bool:
    after = text[start + 7 : start + 8]
    return after == ":" or after.isspace()


def _keyword(known: str, text: str, stop: int, end: int, types: list[str]) -> str:
    """Decide whether a keyword is one here, by what stands around it."""
    before = types[-1] if types else ""
    if before == "DOT":
        return "NAME"
    if known == "RANGE":
        return "RANGE" if text[stop : stop + 8].lstrip().startswith("[") else "NAME"
    if known == "LAST":
        return "LAST" if before == "OVER" else "NAME"
    if known not in _CONSTANTS and _NAMES_AFTER.match(text, stop, end):
        return "NAME"
    if known == "IN" and before == "NOT":
        return "NOT_IN"
    if known == "RETURN":
        return "RETURN" if _returns_value(text, stop, end) else "RETURN_NOTHING"
    if known == "EMIT" and before == "ARROW":
        case = _CASE_AFTER.match(text, stop, end)
        return "EMIT_TO" if case and case[1] not in _STATEMENT_WORDS else "EMIT_ANY"
    return known


def _returns_value(text: str, stop: int, end: int) -> bool:
    """Tell whether what follows a `return` is its value, and not the next statement."""
    blank = _BLANK.match(text, stop, end)
    after = stop if blank is None else blank.end()
    if after >= end or text[after] in ";}" or _STATEMENT.match(text, after, end):
        return False
    return "\n" not in text[stop:after] or not _ACTION_OR_ASSIGNMENT.match(text, after, end)


def _merge(tokens: Tokens, start: int, stop: int) -> None:
    """Make one token of the two that `not in` and `-> emit` are written as."""
    kind = tokens.types.pop()
    tokens.types[-1] = kind
    tokens.ends[-1] = stop


def _fault(tokens: Tokens, kind: str, start: int, stop: int, end: int) -> int | None:
    """Report what cannot be a token; return where to read on if not right after it."""
    text = tokens.text
    if kind == "BAD":
        tokens.report("bad-character", start, stop, _bad_character(text[start:stop]), _instead_of(text[start:stop]))
        return None
    if kind == "OPEN_STRING":
        stop = start + len(text[start:stop].rstrip(" \t\r,;)]}") or text[start])
        tokens.report(
            "unclosed-string",
            start,
            stop,
            f"this string is not closed on its line by {text[start]}",
            'a text of several lines stands between """ and """',
        )
        tokens.types.append("STRING")
        tokens.starts.append(start)
        tokens.ends.append(stop)
        return stop
    what, closer = ("comment", "*/") if kind == "OPEN_COMMENT" else ("string", text[start:stop])
    tokens.report(f"unclosed-{what}", start, stop, f"this {what} is never closed by {closer}")
    tokens.swallowed = start
    if what == "string":
        tokens.types.append("STRING")
        tokens.starts.append(start)
        tokens.ends.append(end)
    else:
        tokens.comments.append((start, end))
    return end


def _bad_character(marks: str) -> str:
    shown = f"`{marks[:20]}`" if marks[:20].isprintable() else f"U+{ord(marks[0]):04X}"
    return f"{shown} has no meaning here"


_INSTEAD = {
    "&": "&&",
    "\u201c": '"',  # typographic quotes, as word processors put them
    "\u201d": '"',
    "\u201e": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2260": "!=",
    "\u00d7": "*",
    "\u2212": "-",
    "\u2013": "-",
    "\u2192": "->",
}


def _instead_of(marks: str) -> str | None:
    found = _INSTEAD.get(marks[0])
    return None if found is None else f"write {found} instead"


def unit_hint(word: str) -> str | None:
    """Suggest the unit that a word behind a number meant."""
    return did_you_mean(word, UNITS)
