"""What stands at a place now: every explanation that can be computed must say the same. Pure.

How much the past must hold before a value without any source (`Fixed`) is believed depends on what it is for: reading by a fixed
argument harms nobody, writing a fixed text or answering a fixed number may be yesterday's answer to another question.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .explain import CannotFollow, Fields, Fixed, Hole, Known, Rows, Source, Text, Tree, same

SUPPORT = 3  # different courses before a fixed value is written, or a place in a list is trusted


@dataclass(frozen=True)
class Ground:
    """What an explanation stands on: how many different courses, and whether their parameters ever differed."""

    courses: int
    varied: bool


@dataclass(frozen=True)
class Use:
    """What a value is for: an argument of an effect class, or the answer. `changes`: the course changes the world."""

    what: str
    effect: str = "read"
    answer: bool = False
    changes: bool = False

    @property
    def careful(self) -> bool:
        """Whether a stale value would do harm."""
        return self.answer or self.effect in {"write", "external"}


def value_of(tree: Tree, known: Known, ground: Ground, use: Use) -> Any:
    """Return the value that a place has now. Raises CannotFollow where the past leaves it open, naming the place."""
    if isinstance(tree, Fields):
        return {key: value_of(item, known, ground, _inside(use, key)) for key, item in tree.items}
    if isinstance(tree, Rows):
        return [value_of(item, known, ground, _inside(use, at)) for at, item in enumerate(tree.items)]
    return _filled(tree, known, ground, use)


def sources(tree: Tree) -> Iterator[Source]:
    """Yield every source that a tree may draw upon."""
    for hole in holes(tree):
        for way in hole.ways:
            if isinstance(way, Source):
                yield way
            elif isinstance(way, Text):
                for part in way.parts:
                    if isinstance(part, Hole):
                        yield from sources(part)


def holes(tree: Tree) -> Iterator[Hole]:
    """Yield the holes of a tree."""
    if isinstance(tree, Fields):
        for _, item in tree.items:
            yield from holes(item)
    elif isinstance(tree, Rows):
        for item in tree.items:
            yield from holes(item)
    else:
        yield tree


def _inside(use: Use, part: str | int) -> Use:
    return Use(f"{use.what}[{part!r}]", use.effect, use.answer, use.changes)


def _filled(hole: Hole, known: Known, ground: Ground, use: Use, *, written: bool = False) -> Any:
    if not hole.ways:
        raise CannotFollow(f"{use.what} is explained by nothing that was recorded: a model worked it out")
    found: list[tuple[Source | Fixed | Text, Any]] = []
    missing: CannotFollow | None = None
    for way in hole.ways:
        if isinstance(way, Source) and way.indexed and way.root != "param" and ground.courses < SUPPORT and use.careful:
            missing = CannotFollow(f"{use.what} may be {way}, which {ground.courses} courses do not prove")
            continue
        try:
            value = _computed(way, known, ground, use)
            found.append((way, _scalar(value, use) if written else value))
        except LookupError:
            missing = CannotFollow(f"{use.what} is {way}, which is not there now")
        except CannotFollow as why:
            missing = why
    flowing = [pair for pair in found if not isinstance(pair[0], Fixed)]
    if not flowing:
        if missing is not None and any(not isinstance(way, Fixed) for way in hole.ways):
            raise missing
        if not found:
            raise missing or CannotFollow(f"{use.what} cannot be computed now")
        return _fixed(found[0][1], ground, use)
    value = flowing[0][1]
    other = next((pair for pair in flowing[1:] if not same(pair[1], value)), None)
    if other is not None:
        raise CannotFollow(f"{use.what} may be {flowing[0][0]} or {other[0]}, which now differ")
    held = next((pair for pair in found if isinstance(pair[0], Fixed)), None)
    if held is not None and not same(held[1], value) and not _believed(flowing[0][0], held[1], ground):
        raise CannotFollow(
            f"{use.what} may be {flowing[0][0]} or {held[0]}: it never varied in {ground.courses} recorded course(s)"
        )
    return value


def _computed(way: Source | Fixed | Text, known: Known, ground: Ground, use: Use) -> Any:
    if isinstance(way, Fixed):
        return way.value
    if isinstance(way, Source):
        return known.get(way)
    return "".join(
        part if isinstance(part, str) else _filled(part, known, ground, use, written=True) for part in way.parts
    )


def _scalar(value: Any, use: Use) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise CannotFollow(f"{use.what} would hold a {type(value).__name__} inside a text")
    return str(value)


def _believed(way: Source | Fixed | Text, recorded: Any, ground: Ground) -> bool:
    """One course alone cannot say what varies: a telling value that is wholly a known one is taken for it."""
    if ground.varied or not isinstance(way, Source):
        return False
    if isinstance(recorded, bool) or recorded is None:
        return False
    if isinstance(recorded, str):
        return len(recorded) >= 3
    if isinstance(recorded, int):
        return abs(recorded) > 9
    if isinstance(recorded, float):
        return recorded != int(recorded) if abs(recorded) < 1e15 else True
    return isinstance(recorded, list | tuple | Mapping) and len(recorded) > 0


def _fixed(value: Any, ground: Ground, use: Use) -> Any:
    if value is None or not use.careful:
        return value
    if use.answer and isinstance(value, int | float) and not isinstance(value, bool):
        raise CannotFollow(f"{use.what} was {value!r} in every recorded course, and nothing says why")
    if use.answer and not use.changes and use.what == "the answer":
        raise CannotFollow(f"{use.what} was {value!r} in every recorded course, and nothing says why")
    if ground.courses < SUPPORT:
        raise CannotFollow(
            f"{use.what} was the same in {ground.courses} recorded course(s): {SUPPORT} are needed to believe that"
        )
    return value
