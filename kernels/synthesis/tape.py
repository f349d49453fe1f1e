"""A tape: the uses of tools that one example recorded, given back to a program that asks for them again.

Uses that change something must come in the recorded order, each once. Uses that only look may come in any order, may be left
out, and may be repeated as long as nothing was changed in between.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import SynthesisError
from .examples import ToolStep
from .values import loose

LOOKS = frozenset({"pure", "read"})


class Diverged(SynthesisError):
    """A program asked for something that the example never did, or left out something that it did."""


class Tape:
    """The recorded uses of one example. `tools` says what each tool does to the world; unknown ones change it."""

    def __init__(self, steps: Sequence[ToolStep], tools: Mapping[str, str]) -> None:
        self.done: list[tuple[str, dict[str, Any]]] = []  # what changed something, in order
        self._effects = [step for step in steps if step.ok and tools.get(step.name, "external") not in LOOKS]
        self._tools = tools
        self._looked: dict[tuple[str, bytes | None], list[tuple[int, Any]]] = {}
        age = 0
        for step in steps:
            if not step.ok:
                continue
            if tools.get(step.name, "external") in LOOKS:
                self._looked.setdefault((step.name, loose(step.args)), []).append((age, step.result))
            else:
                age += 1

    def call(self, name: str, args: dict[str, Any]) -> Any:
        """Return what was recorded for a use; Diverged where there is none."""
        if self._tools.get(name, "external") in LOOKS:
            found = self._looked.get((name, loose(args)))
            if not found:
                raise Diverged(f"{name} was never used with {str(args)[:120]}; look at the steps of this example")
            now = [result for age, result in found if age >= len(self.done)]
            return now[0] if now else found[-1][1]
        place = len(self.done)
        if (
            place >= len(self._effects)
            or self._effects[place].name != name
            or loose(self._effects[place].args) != loose(args)
        ):
            raise Diverged(
                f"{name} was not used with {str(args)[:120]} at this place; look at the steps of this example"
            )
        self.done.append((name, args))
        return self._effects[place].result

    def finish(self) -> None:
        """Diverged where something that was changed has not been."""
        if len(self.done) != len(self._effects):
            left = self._effects[len(self.done)]
            raise Diverged(f"{left.name} was used and now is not; look at the steps of this example")
