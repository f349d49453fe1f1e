"""Where a value of a recorded course came from: a parameter, an earlier result, a text around them, or nowhere. Pure.

The value at one place of several courses is explained by every source that gives it in all of them. All these explanations are kept: a
course is followed only where those that can be computed now agree, so that what the past leaves open is refused, not guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.kernels.sandbox import canonical

from .errors import DispatchError

_DEPTH, _LEAVES, _TEXT_MAX, _PIECES = 4, 300, 20_000, 12


class CannotFollow(DispatchError):
    """A recorded course does not say what to do now: why."""


@dataclass(frozen=True)
class Source:
    """A place of what is known: `root` is `param`, `step` or `reply`, `key` which one, `path` the way inside it."""

    root: str
    key: str | int
    path: tuple[str | int, ...] = ()

    @property
    def indexed(self) -> bool:
        """Whether it counts places in a list."""
        return any(isinstance(part, int) for part in self.path)

    def __str__(self) -> str:
        way = "".join(f"[{part!r}]" for part in self.path)
        what = "the parameter" if self.root == "param" else "the result of step" if self.root == "step" else "reply"
        return f"{what} {self.key!r}{way}"


@dataclass(frozen=True)
class Fixed:
    """The same value in every course."""

    value: Any

    def __str__(self) -> str:
        return f"always {_short(self.value)}"


@dataclass(frozen=True)
class Text:
    """A text of fixed pieces and holes."""

    parts: "tuple[str | Hole, ...]"

    def __str__(self) -> str:
        return "a text around " + ", ".join(str(part.ways[0]) for part in self.parts if isinstance(part, Hole))


@dataclass(frozen=True)
class Hole:
    """A place, and every way to explain it; none where nothing explains it. `shown` is a recorded value."""

    ways: tuple[Source | Fixed | Text, ...]
    shown: Any = None


@dataclass(frozen=True)
class Rows:
    """A list whose items are explained one by one."""

    items: "tuple[Tree, ...]"


@dataclass(frozen=True)
class Fields:
    """A dict whose values are explained one by one."""

    items: "tuple[tuple[str | int, Tree], ...]"


Tree = Hole | Rows | Fields


@dataclass(frozen=True)
class Known:
    """What may be drawn upon: parameters, results of the steps so far, replies of models (by step number)."""

    params: Mapping[str, Any]
    results: Sequence[Any] = ()
    replies: Mapping[int, Any] | None = None

    def get(self, source: Source) -> Any:
        """Return what stands at a source. Raises LookupError where there is nothing."""
        at: Any
        if source.root == "param":
            at = self.params[str(source.key)]
        elif source.root == "step":
            at = self.results[int(source.key)]
        else:
            at = (self.replies or {})[int(source.key)]
        for part in source.path:
            if isinstance(part, int):
                if not isinstance(at, list | tuple):
                    raise LookupError(part)
            elif not isinstance(at, Mapping):
                raise LookupError(part)
            at = at[part]
        return at


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal as values cross: 1 is not True and not 1.0; a tuple is a list."""
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    return stamp(one) == stamp(other)


def stamp(value: Any) -> bytes:
    """Return bytes that are equal for equal values; what cannot cross is its own kind."""
    try:
        return canonical(value)
    except (TypeError, OverflowError, ValueError, RecursionError):
        pass
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001  an object of the user's, or one nested too deep: it equals itself alone
        shown = object.__repr__(value)
    return b"\xc1" + shown.encode("utf-8", "replace")


def explain(values: Sequence[Any], known: Sequence[Known]) -> Tree:
    """Return all explanations of what stood at one place: `values[i]` in the course that knew `known[i]`."""
    places = _places(known[0])
    return _explain(list(values), known, places)


def _explain(values: list[Any], known: Sequence[Known], places: Mapping[bytes, list[Source]]) -> Tree:
    first, rest = values[0], values[1:]
    fixed = all(same(first, other) for other in rest)
    ways: list[Source | Fixed | Text] = [
        source
        for source in places.get(stamp(first), ())
        if all(_gives(one, source, value) for one, value in zip(known[1:], rest, strict=True))
    ]
    if not ways and first and isinstance(first, Mapping) and all(_alike(first, other) for other in rest):
        fields = ((key, _explain([value[key] for value in values], known, places)) for key in first)
        return Fields(tuple(fields))
    if not ways and first and isinstance(first, list | tuple) and all(_alike(first, other) for other in rest):
        rows = (_explain([value[at] for value in values], known, places) for at in range(len(first)))
        return Rows(tuple(rows))
    if not ways and all(isinstance(value, str) and len(value) <= _TEXT_MAX for value in values):
        text = _text(values, known)
        if text is not None:
            ways.append(text)
    if fixed:
        ways.append(Fixed(first))
    return Hole(tuple(ways), first)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys()
    return isinstance(other, list | tuple) and len(one) == len(other)


def _gives(known: Known, source: Source, value: Any) -> bool:
    try:
        return same(known.get(source), value)
    except LookupError:
        return False


def _places(known: Known) -> dict[bytes, list[Source]]:
    """Return every place of what is known by the stamp of its value, parameters first."""
    found: dict[bytes, list[Source]] = {}
    for source, value in _walk(known):
        found.setdefault(stamp(value), []).append(source)
    return found


def _walk(known: Known) -> Iterator[tuple[Source, Any]]:
    roots = [Source("param", name) for name in known.params]
    roots += [Source("step", at) for at in range(len(known.results))]
    roots += [Source("reply", number) for number in known.replies or {}]
    for root in roots:
        left = _LEAVES
        waiting = [(root, known.get(root))]
        while waiting and left:
            source, value = waiting.pop(0)
            left -= 1
            yield source, value
            if len(source.path) < _DEPTH:
                inside: Iterator[tuple[Any, Any]] = iter(())
                if isinstance(value, Mapping):
                    inside = iter(value.items())
                elif isinstance(value, list | tuple):
                    inside = iter(enumerate(value[:_LEAVES]))
                waiting += [(Source(root.root, root.key, (*source.path, part)), item) for part, item in inside]


def _text(values: Sequence[str], known: Sequence[Known]) -> Text | None:
    """Find one text, of pieces that are the same in all courses and of known values, that gives every one of `values`."""
    groups: dict[tuple[str, ...], list[Source]] = {}
    for source, value in _walk(known[0]):
        written = _written(value)
        if written is None or written not in values[0]:
            continue
        texts = [written]
        for one, text in zip(known[1:], values[1:], strict=True):
            try:
                other = _written(one.get(source))
            except LookupError:
                break
            if other is None or other not in text:
                break
            texts.append(other)
        else:
            groups.setdefault(tuple(texts), []).append(source)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[0][0]), item[0]))[:_PIECES]
    for left_out in (None, *range(len(ordered))):
        chosen = [item for at, item in enumerate(ordered) if at != left_out]
        parts = _cut(values[0], chosen)
        if parts is not None and all(
            "".join(part if isinstance(part, str) else part[0][at] for part in parts) == value
            for at, value in enumerate(values)
        ):
            return Text(tuple(part if isinstance(part, str) else _piece(part) for part in parts))
    return None


def _piece(group: "_Group") -> Hole:
    """Return a hole of a text; what was the same in all courses may as well be a fixed piece."""
    texts, found = group
    fixed = (Fixed(texts[0]),) if all(text == texts[0] for text in texts) else ()
    return Hole((*found, *fixed), texts[0])


_Group = tuple[tuple[str, ...], list[Source]]


def _cut(text: str, groups: Sequence[_Group]) -> list[str | _Group] | None:
    parts: list[str | _Group] = []
    at = start = 0
    while at < len(text):
        found = next((one for one in groups if text.startswith(one[0][0], at) and _whole(text, at, one[0][0])), None)
        if found is None:
            at += 1
            continue
        if start < at:
            parts.append(text[start:at])
        parts.append(found)
        at = start = at + len(found[0][0])
    if start < len(text):
        parts.append(text[start:])
    return parts if any(not isinstance(part, str) for part in parts) else None


def _whole(text: str, at: int, piece: str) -> bool:
    """Tell whether a short piece stands as a word of its own: the 1 of 10 is no parameter."""
    if len(piece) > 3:
        return True
    before, after = text[at - 1 : at], text[at + len(piece) : at + len(piece) + 1]
    return not (before.isalnum() and piece[0].isalnum()) and not (after.isalnum() and piece[-1].isalnum())


def _written(value: Any) -> str | None:
    """Return how a scalar stands in a text, None for what does not."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, int | float):
        return str(value)
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
