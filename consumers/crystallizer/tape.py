"""A recorded course played back: a tool that calls what was called then is answered what was answered then.

What changed the world (writes and external uses that succeeded) must be done again, all of it, in order, with the same
arguments. What only looked (reads, pure functions) is answered between the same two changes as then, in any order and as often
as it is asked: a look is the same look as long as nothing has changed, or as what changed was another file. A look that
nobody needed may be left out, and a step that failed and was done again just after counts once, as an agent's retry. All
else is a divergence, after which nothing is answered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from morphogen.kernels.sandbox import Capabilities, Declared, Refused, value_sha256

from .acting import CHANGES, Use, answering, as_recorded, bound


class Recorded(Protocol):
    """A recorded use: a `Step` of a trace, or whatever else says as much."""

    @property
    def name(self) -> str:
        """The capability."""

    @property
    def args(self) -> Any:
        """Its arguments by name."""

    @property
    def effect(self) -> str:
        """The effect: pure, read, write or external."""

    @property
    def result(self) -> Any:
        """What it gave."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""

    @property
    def error(self) -> str | None:
        """Why it failed."""


@dataclass(eq=False)
class _Entry:
    step: Recorded
    key: tuple[str, str]
    played: bool = False


class Tape:
    """The recorded uses of tools of one execution, to be played once. `capabilities` is what the tool is given.

    `real` declares names and signatures (by which positional arguments find their names, and defaults are filled in);
    nothing of it is ever called.
    """

    def __init__(self, steps: Iterable[Recorded], real: Capabilities | None = None) -> None:
        self._real = {} if real is None else real.functions
        self.divergence: str | None = None
        self.uses: list[Use] = []
        self._changes: list[_Entry] = []
        self._looks: list[list[_Entry]] = [[]]  # looks and failures, between one change and the next
        names: dict[str, Declared | None] = dict(self._real)
        for step in steps:
            names.setdefault(step.name, None)
            entry = _Entry(step, self._key(step.name, self._named(step.name, dict(step.args))))
            if step.ok and step.effect in CHANGES:
                self._changes.append(entry)
                self._looks.append([])
            else:
                self._looks[-1].append(entry)
        self._at = 0  # changes that were made
        self.capabilities = answering(names, self._play, waits=False)

    @property
    def undone(self) -> tuple[str, ...]:
        """The changes that were recorded and not made, as calls."""
        return tuple(_call(one.step.name, dict(one.step.args)) for one in self._changes[self._at :])

    @property
    def unread(self) -> tuple[Recorded, ...]:
        """The reads that were recorded and left out, one of each; pure functions do not count."""
        reads = [one for entries in self._looks for one in entries if one.step.ok and one.step.effect == "read"]
        read = {one.key for one in reads if one.played}
        left = {one.key: one.step for one in reads if one.key not in read}
        return tuple(left.values())

    def fault(self) -> str | None:
        """Say how what was played differs from what was recorded; None where it does not."""
        if self.divergence is not None:
            return self.divergence
        left = self.undone
        return f"it leaves out {left[0]}" + (f" and {len(left) - 1} more" if len(left) > 1 else "") if left else None

    def _named(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        real = self._real.get(name)
        try:
            given = bound(None if real is None else real.function, (), args)
        except TypeError:
            return args  # recorded by another version of the function
        return as_recorded(given)

    def _key(self, name: str, args: dict[str, Any]) -> tuple[str, str]:
        return name, value_sha256(args)

    def _play(self, name: str, args: dict[str, Any]) -> Any:
        if self.divergence is not None:
            raise Refused(self.divergence)
        args = as_recorded(args)
        entry = self._next(self._key(name, args))
        if entry is None:
            self.divergence = f"it calls {_call(name, args)} where {self._expected()}"
            raise Refused(self.divergence)
        entry.played = True
        step = entry.step
        self.uses.append(
            Use(name=name, args=args, effect=step.effect, result=step.result, ok=step.ok, error=step.error)
        )
        if not step.ok:
            raise Refused(step.error or f"{name} failed")
        return step.result

    def _next(self, key: tuple[str, str]) -> _Entry | None:
        if self._at < len(self._changes) and self._changes[self._at].key == key:
            self._at += 1
            return self._changes[self._at - 1]
        here = [one for one in self._looks[self._at] if one.key == key]
        waiting = [one for one in here if not one.played]
        if waiting:
            return next((one for one in waiting if one.step.ok), waiting[0])
        if here and _alike(here):
            return here[-1]  # a look once more, and nothing has changed
        return self._elsewhere(key)

    def _elsewhere(self, key: tuple[str, str]) -> _Entry | None:
        """Find a look that was made before or after other changes, none of which could have touched what it saw."""
        for at in sorted(range(len(self._looks)), key=lambda at: abs(at - self._at)):
            found = [one for one in self._looks[at] if one.key == key]
            between = self._changes[min(at, self._at) : max(at, self._at)]
            if found and _alike(found) and all(_apart(one.step, found[0].step) for one in between):
                return found[0]
        return None

    def _expected(self) -> str:
        if self._at < len(self._changes):
            step = self._changes[self._at].step
            return f"the execution has {_call(step.name, dict(step.args))} next"
        looks = [one.step for one in self._looks[self._at] if not one.played]
        return (
            f"the execution has {_call(looks[0].name, dict(looks[0].args))}" if looks else "the execution has nothing"
        )


def played(steps: Sequence[Recorded]) -> str:
    """Return a hash of what the tools of an execution answered, in order: two courses of one hash saw the same world."""
    return value_sha256(
        [
            [one.name, value_sha256(dict(one.args)), one.ok, value_sha256(one.result) if one.ok else one.error]
            for one in steps
        ]
    )


def _alike(entries: list[_Entry]) -> bool:
    """Tell whether these are looks that all gave one result."""
    looks = all(one.step.ok and one.step.effect not in CHANGES for one in entries)
    return looks and len({value_sha256(one.step.result) for one in entries}) == 1


def _apart(change: Recorded, look: Recorded) -> bool:
    """Tell whether a change cannot have touched what a look saw: both are of a workspace's files, and of others."""
    paths = [one.args.get("path") for one in (change, look)]
    if not all(one.name.startswith("files.") for one in (change, look)):
        return False
    if not all(isinstance(path, str) and path for path in paths):
        return False
    changed, seen = (f"{str(path).rstrip('/')}/" for path in paths)
    return not changed.startswith(seen) and not seen.startswith(changed)


def _call(name: str, args: dict[str, Any]) -> str:
    shown = ", ".join(f"{key}={value!r}" for key, value in args.items())
    return f"{name}({shown if len(shown) <= 200 else shown[:200] + '...'})"
