"""The flat YAML front matter that a module may begin with: metadata between two lines of `---`."""

import re
from dataclasses import dataclass

from .diagnostics import Diagnostic
from .lines import Lines

_FENCE = re.compile(r"---[ \t\r]*(?:\n|\Z)")
_ENTRY = re.compile(r"([^\s:#'\"-][^:\n]*?|'[^'\n]*'|\"[^\"\n]*\")\s*:(?:[ \t]+(.*))?")


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The metadata in order, values as text, and where the module begins behind it."""

    end: int
    metadata: tuple[tuple[str, str], ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


def front_matter(text: str, lines: Lines) -> FrontMatter:
    """Read the front matter, if the text begins with one."""
    begin = 1 if text.startswith("\ufeff") else 0
    while begin < len(text) and text[begin] in "\r\n":
        begin += 1
    if (fence := _FENCE.match(text, begin)) is None:
        return FrontMatter(1 if text.startswith("\ufeff") else 0)
    found: list[tuple[str, str]] = []
    problems: list[Diagnostic] = []
    at = fence.end()
    while at < len(text):
        if (closing := _FENCE.match(text, at)) is not None:
            return FrontMatter(closing.end(), tuple(found), tuple(problems))
        stop = text.find("\n", at)
        stop = len(text) if stop < 0 else stop
        line = text[at:stop].strip()
        if line and not line.startswith("#"):
            entry = _ENTRY.fullmatch(line)
            if entry is None or text[at] in " \t":
                problems.append(
                    Diagnostic(
                        "bad-front-matter",
                        "error",
                        lines.span(at, stop),
                        "a line of the front matter is `key: value`",
                        (),
                        "it is flat: lists are written [a, b]",
                    )
                )
            else:
                found.append((_unquoted(entry[1]), _unquoted((entry[2] or "").strip())))
        at = stop + 1
    problems = [
        Diagnostic(
            "unclosed-front-matter", "error", lines.span(begin, begin + 3), "the front matter is never closed by `---`"
        )
    ]
    return FrontMatter(len(text), tuple(found), tuple(problems))


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else re.sub(r"\s+#.*", "", value)
