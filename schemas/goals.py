"""What was asked for, made comparable: one normalisation of goals, versioned, used wherever goals meet.

A goal is a sentence with parameters: "Sum the column price of shop.csv" with `{"column": "price", "path": "shop.csv"}`. Its
*template* names the parameters instead of their values ("sum the column {column} of {path}"); all goals of one template
are a *family*, known by the template's signature.

Normalising works on words, never on characters, so a value is found as whole words or not at all, and what was
normalised once stays as it is.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

NORM_VERSION = 1
_PLACE = re.compile(r"\{[^\s{}]+\}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OPERATORS = frozenset("#%&*/@\\")  # marks that are punctuation to Unicode and not to a goal: 3*4 is not 3/4
_MINUS = str.maketrans({"\u2212": "-"})


def template(goal: str, params: Mapping[str, Any] | None = None) -> str:
    """Return the normal form of a goal: its values named, case folded, words with one space between them.

    A text, a number, or a list of such in `params` that stands in the goal as whole words becomes `{name}`, the longest
    first; where several have the same value, the first by name stands first. A number is found as it is usually written
    (5.0 as 5, 1000 as 1,000), never inside another (5 in 1.5, or behind a minus sign). What is written `{name}` already
    stays. Punctuation goes, so "Sum it!" and "sum  it" are one goal; marks that reckon or name (+ < = % / # @ $ and the
    like) are words of their own. `template(template(g, p), p)` is `template(g, p)`.
    """
    words = list(_words(goal))
    for value, names in _values(params or {}):
        words = _named(words, value, names)
    return " ".join(words)


def signature(goal: str, params: Mapping[str, Any] | None = None) -> str:
    """Return the name of a goal's family: `g1-` and 16 hex digits, of the version and the template."""
    digest = hashlib.sha256(f"{NORM_VERSION}\n{template(goal, params)}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"g{NORM_VERSION}-{digest[:16]}"


def places(normal: str) -> tuple[str, ...]:
    """Return the names of the parameters that stand in a template, in their order; one that stands twice comes twice."""
    return tuple(word[1:-1] for word in normal.split(" ") if _PLACE.fullmatch(word))


def _words(text: str) -> Iterator[str]:
    """Yield the words of a goal: `{name}` as it is written, all else folded."""
    text = unicodedata.normalize("NFKC", text)
    at = 0
    for place in _PLACE.finditer(text):
        yield from _split(_folded(text[at : place.start()]))
        yield place[0]
        at = place.end()
    yield from _split(_folded(text[at:]))


def _folded(text: str) -> str:
    """Fold case and compatible forms until nothing changes, so that folding again changes nothing."""
    for _ in range(4):
        folded = unicodedata.normalize("NFKC", text.casefold()).translate(_MINUS)
        if folded == text:
            break
        text = folded
    return text


def _split(text: str) -> Iterator[str]:
    """Yield runs of letters, digits, underscores and the marks that belong to them; numbers; single symbols."""
    at = 0
    while at < len(text):
        end = _number(text, at) or _run(text, at)
        if end > at:
            yield text[at:end]
            at = end
        else:
            if text[at] in _OPERATORS or unicodedata.category(text[at])[0] == "S":
                yield text[at]
            at += 1


def _number(text: str, at: int) -> int:
    """Return where the number that begins at `at` ends, 0 where none does. It may have a sign, and no letter beside it."""
    before = at > 0 and _wordly(text[at - 1])
    found = None if before else _NUMBER.match(text, at + 1 if text[at] == "-" else at)
    return 0 if found is None or (found.end() < len(text) and _wordly(text[found.end()])) else found.end()


def _run(text: str, at: int) -> int:
    while at < len(text) and _wordly(text[at]):
        at += 1
    return at


def _wordly(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char)[0] == "M"


def _values(params: Mapping[str, Any]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return the words of each value with the names that have it, the longest value first."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(params, key=str):
        for form in dict.fromkeys(_forms(params[name])):
            if form:
                found.setdefault(form, []).append(_place(str(name)))
    return sorted(found.items(), key=lambda item: (-len(item[0]), -sum(map(len, item[0])), item[0]))


def _forms(value: Any) -> Iterator[tuple[str, ...]]:
    """Yield each way in which a value may stand in a goal, as words."""
    if isinstance(value, list | tuple):
        items = [next(_forms(item), ()) for item in value if not isinstance(item, list | tuple)]
        if len(items) == len(value) > 0 and all(items):
            yield _joined(items)
            yield (*_joined(items[:-1]), "and", *items[-1])
            yield _joined([item if at == 0 else ("and", *item) for at, item in enumerate(items)])
        return
    for text in _written(value):
        yield tuple(_split(_folded(unicodedata.normalize("NFKC", text))))


def _written(value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and value.bit_length() <= 64:
        yield str(value)
        yield f"{value:,}"
    elif isinstance(value, float):
        yield repr(value)
        if value.is_integer() and abs(value) < 1e15:
            yield str(int(value))
            yield f"{int(value):,}"


def _joined(items: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(word for item in items for word in item)


def _place(name: str) -> str:
    """Return how a parameter stands in a template; what would not be read back as one name is written with `_`."""
    plain = re.sub(r"[\s{}]+", "_", unicodedata.normalize("NFKC", name))
    return f"{{{plain or '_'}}}"


def _named(words: list[str], value: tuple[str, ...], names: list[str]) -> list[str]:
    """Put names where a value stands, the next name at each place and the last one for all that are left."""
    out: list[str] = []
    at = used = 0
    while at < len(words):
        if tuple(words[at : at + len(value)]) == value:
            out.append(names[min(used, len(names) - 1)])
            used += 1
            at += len(value)
        else:
            out.append(words[at])
            at += 1
    return out
