"""FOLLOWER: go a recorded course again with the request's parameters, comparing each result. No model is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.schemas import sound

from .explain import CannotFollow, same
from .plan import Plan, Taken, agrees, check, next_step
from .protocol import Act

Call = Callable[[str, dict[str, Any]], Any]
_ENDLESS = 10_000


@dataclass(frozen=True)
class Followed:
    """How far it came. `refused` where it stopped by itself because the past does not say what to do; else `error`."""

    ok: bool
    output: Any = None
    refused: str | None = None
    error: str | None = None
    steps: int = 0


def follow(plan: Plan, params: Mapping[str, Any], call: Call, environment: Mapping[str, str] | None = None) -> Followed:
    """Take the plan's steps through `call`, which returns a result or raises; stop at the first that goes otherwise."""
    taken: list[Taken] = []
    at = environment or {}
    try:
        check(plan, params, at)
        while len(taken) < _ENDLESS:
            step = next_step(plan, params, taken, at)
            if step.name is None:
                return Followed(True, step.value, steps=len(taken))
            try:
                result = call(step.name, step.args)
            except CannotFollow:
                raise
            except Exception as failure:  # noqa: BLE001 - a declared tool may fail in any way: another mode is tried
                return Followed(False, error=f"step {len(taken)} ({step.name}): {sound(failure)}", steps=len(taken))
            wrong = agrees(plan, len(taken), step.name, step.args, step.effect, result)
            if wrong is not None:
                return Followed(False, error=wrong, steps=len(taken) + 1)
            taken.append(Taken(step.name, result))
    except CannotFollow as why:
        return Followed(False, refused=str(why), steps=len(taken))
    return Followed(False, error=f"more than {_ENDLESS} steps", steps=len(taken))


@dataclass(frozen=True)
class Compared:
    """What following would have come to, beside what was done. `agreed` is None where that cannot be said."""

    agreed: bool | None
    reason: str = ""


Spelled = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def would_agree(
    plan: Plan,
    params: Mapping[str, Any],
    acts: Sequence[Act],
    output: Any,
    spelled: Spelled = lambda _, args: dict(args),
    environment: Mapping[str, str] | None = None,
) -> Compared:
    """Follow on paper: each step is answered from `acts`, what another mode just did. Nothing is called.

    `spelled` gives the one spelling of a call's arguments, by which two calls are compared.
    """
    left = [act for act in acts if act.ok]
    unknown: list[str] = []

    def recorded(name: str, args: dict[str, Any]) -> Any:
        for at, act in enumerate(left):
            if act.name == name and same(spelled(name, act.args), spelled(name, args)):
                return (left.pop(at) if act.changes else act).result
        unknown.append(name)
        raise CannotFollow(f"{name} was not asked for with these arguments")

    followed = follow(plan, params, recorded, environment)
    if followed.refused is not None:
        changed = [
            name for name in unknown if any(step.name == name and step.effect in _CHANGES for step in plan.steps)
        ]
        if changed:
            return Compared(False, f"following would have called {changed[0]} otherwise")
        return Compared(None, followed.refused)
    if not followed.ok:
        return Compared(False, followed.error or "")
    if not same(followed.output, output):
        return Compared(False, "following would have answered otherwise")
    forgotten = next((act.name for act in left if act.changes), None)
    if forgotten is not None:
        return Compared(False, f"following would have left out {forgotten}")
    return Compared(True, "the same steps and the same answer")


_CHANGES = frozenset({"write", "external"})
