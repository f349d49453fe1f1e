"""Strings as written to strings as meant: quotes, escapes, the indentation of a text of several lines, `{{ }}`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(\n)|([\s\S])|$)")
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'", "{": "{", "}": "}"}
_HOLE = re.compile(r"\\[\s\S]|\{\{((?:[^{}]++|\{(?!\{)|\}(?!\}))*+)\}\}")  # or an escape, to step over it


@dataclass(frozen=True, slots=True)
class Text:
    """Text of a string, escapes read."""

    value: str


@dataclass(frozen=True, slots=True)
class Hole:
    """An expression in `{{ }}`: where it stands in the source, braces left out."""

    start: int
    end: int


def pieces(raw: str, start: int) -> Iterator[Text | Hole]:
    """Take a string token apart; `start` is its place in the source. A string without holes is one Text."""
    body, offset = _body(raw)
    cuts = _margins(body) if offset == 3 else []
    at = 0
    for hole in _HOLE.finditer(body) if "{{" in body else ():
        if hole[1] is None:
            continue
        if text := _without(body, at, hole.start(), cuts):
            yield Text(unescape(text))
        yield Hole(start + offset + hole.start(1), start + offset + hole.end(1))
        at = hole.end()
    if (text := _without(body, at, len(body), cuts)) or not at:
        yield Text(unescape(text))


def plain(raw: str) -> str:
    """Read a string token in which `{{` means nothing: a name, a path."""
    body, offset = _body(raw)
    return unescape(_without(body, 0, len(body), _margins(body) if offset == 3 else []))


def unescape(text: str) -> str:
    r"""Read escapes: `\n \t \r \0 \\ \" \' \{ \} \xHH \uHHHH \u{H..}`; any other stays as written."""
    return _ESCAPE.sub(_escaped, text) if "\\" in text else text


def unknown_escapes(raw: str) -> Iterator[tuple[int, int]]:
    """Find the escapes of a string token that mean nothing, as offsets in it."""
    if "\\" in raw:
        for found in _ESCAPE.finditer(raw):
            number = found[1] or found[2]
            bad_number = number is not None and not _is_character(int(number, 16))
            if bad_number or (found[5] is not None and found[5] not in _PLAIN):
                yield found.start(), found.end()


def quote(text: str) -> str:
    """Write a text as a string token that means it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
    written = "".join(escapes.get(mark, mark if mark.isprintable() else f"\\u{{{ord(mark):x}}}") for mark in text)
    return '"' + written.replace("{{", "\\{\\{") + '"'


def _escaped(found: re.Match[str]) -> str:
    number = found[1] or found[2] or found[3]
    if number is not None:
        code = int(number, 16)
        return chr(code) if _is_character(code) else found[0]
    if found[4] is not None:
        return ""  # a backslash at the end of a line joins it with the next
    return found[0] if found[5] is None else _PLAIN.get(found[5], found[0])


def _is_character(code: int) -> bool:
    return code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF


def _body(raw: str) -> tuple[str, int]:
    """Take the quotes off; a string that is not closed has none at its end."""
    width = 3 if raw[:3] in {'"""', "'''"} else 1
    closed = len(raw) >= 2 * width and raw.endswith(raw[:width])
    return raw[width:-width] if closed else raw[width:], width


def _margins(body: str) -> list[tuple[int, int]]:
    """Find what a text of several lines does not mean, as ranges in order.

    That is a blank first line with its break, the indentation that the other lines share (the closing quotes count
    where they stand alone), blanks on blank lines, and carriage returns.
    """
    first, newline, _ = body.partition("\n")
    if not newline:
        return []
    cuts = [(0, len(first) + 1)] if not first.strip() else [(len(first) - 1, len(first))] if first[-1] == "\r" else []
    lines: list[tuple[int, int]] = []
    at = len(first) + 1
    while at <= len(body):
        end = body.find("\n", at)
        end = len(body) if end < 0 else end
        lines.append((at, end))
        at = end + 1
    indents = [
        text[: len(text) - len(text.lstrip(" \t"))]
        for text in (body[start:end] for start, end in lines)
        if text.strip()
    ]
    last = body[lines[-1][0] :]
    if not last.strip():
        indents.append(last)
    margin = _shared(indents)
    for start, end in lines:
        text = body[start:end]
        if not text.strip():
            cuts.append((start, end))
        else:
            cuts.append((start, start + margin))
            if text.endswith("\r") and end < len(body):
                cuts.append((end - 1, end))
    return cuts


def _shared(indents: list[str]) -> int:
    """Count the characters that all begin with; the least and the greatest in order differ first."""
    if not indents:
        return 0
    least, greatest = min(indents), max(indents)
    return next((at for at, mark in enumerate(least) if mark != greatest[at]), len(least))


def _without(body: str, start: int, end: int, cuts: list[tuple[int, int]]) -> str:
    """Return a stretch of a text without the ranges that are cut from it."""
    kept = []
    for begin, stop in cuts:
        if stop <= start:
            continue
        if begin >= end:
            break
        kept.append(body[start:begin])
        start = stop
    kept.append(body[start:end])
    return "".join(kept)
