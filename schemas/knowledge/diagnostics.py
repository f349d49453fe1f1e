"""What is wrong with a knowledge module, said so that it can be mended: where, what, what was expected, the nearest name.

A diagnostic is data. `render` shows it to a person with its line and a caret, `to_json` to a machine.
"""

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .tree import Span

Severity = Literal["error", "warning", "note"]

TAB_STOP = 4
LONGEST_LINE = 160  # characters of source shown; a longer line is cut around the caret


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.

    `code` is stable and in kebab case (`unexpected-token`); `expected` says in plain words what could stand at the
    place; `hint` is a whole sentence that says what to do.
    """

    code: str
    severity: Severity
    span: Span
    message: str
    expected: tuple[str, ...] = ()
    hint: str | None = None


def render(diagnostic: Diagnostic, text: str, path: str = "<text>") -> str:
    """Show a diagnostic as compilers do: place and message, the line, a caret below it, and what would help."""
    span = diagnostic.span
    before, line, width = _line_around(text, span)
    number = str(span.line)
    gutter = " " * len(number)
    parts = [
        headline(diagnostic, path),
        f"{number} | {before}{line}",
        f"{gutter} | {' ' * _cells(before)}{'^' * width}",
    ]
    if diagnostic.expected:
        parts.append(f"{gutter} = expected {any_of(diagnostic.expected)}")
    if diagnostic.hint:
        parts.append(f"{gutter} = {diagnostic.hint}")
    return "\n".join(parts)


def headline(diagnostic: Diagnostic, path: str = "<text>") -> str:
    """Say a diagnostic in one line: `file:line:column: error[code]: message`."""
    span = diagnostic.span
    return f"{path}:{span.line}:{span.column}: {diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"


def to_json(diagnostic: Diagnostic, path: str = "<text>") -> dict[str, object]:
    """Give a diagnostic as plain values, for `--json` and editors; offsets count characters from 0."""
    span = diagnostic.span
    return {
        "path": path,
        "line": span.line,
        "column": span.column,
        "start": span.start,
        "end": span.end,
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "expected": list(diagnostic.expected),
        "hint": diagnostic.hint,
    }


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that a misspelled one most likely meant; None when nothing is near."""
    if len(name) > 200:  # nobody misspells a paragraph, and matching one is slow
        return None
    names = sorted(set(known) - {name})
    folded = {candidate.casefold(): candidate for candidate in names}
    if (same := folded.get(name.casefold())) is not None:
        return same
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.7 if len(name) > 3 else 0.6)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Word the nearest known name as a hint."""
    found = nearest(name, known)
    return None if found is None else f"did you mean `{found}`?"


def any_of(words: Iterable[str]) -> str:
    """Join alternatives as a person would: `a, b or c`."""
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"


def _line_around(text: str, span: Span) -> tuple[str, str, int]:
    """Give the source line in two parts, before and from the caret on, and the caret's width in cells."""
    start = min(max(span.start, 0), len(text))
    begin = text.rfind("\n", 0, start) + 1
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    head, tail = text[begin:start], text[start:end].rstrip("\r")
    marked = tail[: max(span.end - start, 0)]
    if len(head) + len(tail) > LONGEST_LINE:
        if len(head) > LONGEST_LINE // 2:
            head = "…" + head[-LONGEST_LINE // 2 :]
        if len(tail) > LONGEST_LINE // 2:
            tail = tail[: LONGEST_LINE // 2] + "…"
            marked = marked[: LONGEST_LINE // 2]
    head, tail, marked = _shown(head), _shown(tail), _shown(marked)
    return head, tail, max(_cells(marked), 1)


def _shown(text: str) -> str:
    """Replace what a terminal would act on or could not write: tabs by spaces, controls and lone surrogates by marks."""
    return "".join(
        " " * TAB_STOP if mark == "\t" else "�" if unicodedata.category(mark) in {"Cc", "Cs", "Zl", "Zp"} else mark
        for mark in text
    )


def _cells(text: str) -> int:
    """Count the terminal cells that a text takes: wide characters two, combining ones none."""
    return sum(
        0
        if unicodedata.category(mark) in {"Mn", "Me", "Cf"}
        else 2
        if unicodedata.east_asian_width(mark) in "WF"
        else 1
        for mark in text
    )
