"""What a request does to the world, kept while it is served: so that no mode does again what another has done.

Each mode gets capabilities of its own over the same functions. A write or an external act that an earlier mode of the request did
with the same arguments is answered from the record, once for each time it was done. An external act that failed may have
happened all the same; it is not tried again.
"""

import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from morphogen.consumers.crystallizer.acting import bound, perform
from morphogen.kernels.sandbox import Capabilities, Declared, Refused
from morphogen.kernels.sandbox.capabilities import EffectClass
from morphogen.schemas import sound
from morphogen.schemas.settling import settled

from .explain import same, stamp
from .protocol import Act

_Key = tuple[str, bytes]


@dataclass(frozen=True)
class Watched:
    """A declared function, and its signature where it tells one."""

    real: Declared
    signature: inspect.Signature | None

    @property
    def effect(self) -> EffectClass:
        """What calling it does to the world."""
        return self.real.effect

    def without_defaults(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments without those that say what is meant anyway, so that two spellings of one call are equal."""
        known = {} if self.signature is None else self.signature.parameters
        return {
            key: value
            for key, value in args.items()
            if key not in known or known[key].default is inspect.Parameter.empty or not same(known[key].default, value)
        }


def watched(capabilities: Capabilities) -> dict[str, Watched]:
    """Return the functions that are declared, ready to be watched in many requests."""
    found: dict[str, Watched] = {}
    for name, declared in capabilities.functions.items():
        try:
            found[name] = Watched(declared, inspect.signature(declared.function))
        except (ValueError, TypeError):  # a C function that does not tell
            found[name] = Watched(declared, None)
    return found


class Acts:
    """The acts of one request, by mode, over its real capabilities. Safe between threads."""

    def __init__(self, watched: "Mapping[str, Watched]") -> None:
        self._watched = watched
        self._lock = threading.Lock()
        self._all: list[Act] = []
        self._mode: list[Act] = []
        self._told: Callable[[int, Act], None] | None = None
        self._earlier: dict[_Key, list[Act]] = {}

    @property
    def all(self) -> tuple[Act, ...]:
        """Everything that was done for the request, in order of its end."""
        with self._lock:
            return tuple(self._all)

    @property
    def of_mode(self) -> tuple[Act, ...]:
        """What was done since the newest `begin`."""
        with self._lock:
            return tuple(self._mode)

    @property
    def changes(self) -> tuple[Act, ...]:
        """What was really done to the world, or may have been: writes and external acts, without answers from the record."""
        return tuple(act for act in self.all if act.changes and not act.again and (act.ok or act.effect == "external"))

    def begin(self, told: Callable[[int, Act], None] | None = None) -> Capabilities:
        """Return capabilities for the next mode; what was done until now counts as done before.

        `told` hears of each act of the mode as it ends, with its number.
        """
        earlier: dict[_Key, list[Act]] = defaultdict(list)
        with self._lock:
            for act in self._all:
                if act.changes and not act.again and (act.ok or act.effect == "external"):
                    earlier[act.name, stamp(act.args)].append(act)
            self._earlier, self._mode, self._told = earlier, [], told
        given = Capabilities()
        for name, declared in self._watched.items():
            given.functions[name] = Declared(self._use(name, declared), declared.effect)
        return given

    def _use(self, name: str, declared: "Watched") -> Callable[..., Any]:
        def use(*args: Any, **named: Any) -> Any:
            try:
                given = bound(use if declared.signature is not None else None, args, named)
            except TypeError as error:
                raise Refused(f"{name}: {error}") from None
            return self._do(name, declared, given)

        if declared.signature is not None:
            use.__signature__ = declared.signature  # type: ignore[attr-defined]
        return use

    def _do(self, name: str, declared: "Watched", args: dict[str, Any]) -> Any:
        effect, short = declared.effect, declared.without_defaults(args)
        with self._lock:
            waiting = self._earlier.get((name, stamp(short))) if effect in {"write", "external"} else None
            before = waiting.pop(0) if waiting else None
        if before is not None:
            return self._again(before)
        began = time.monotonic_ns()
        result, error = None, None
        try:
            result = perform(name, declared.real, args)
        except BaseException as failure:
            error = sound(failure) or type(failure).__name__
            raise
        finally:
            self._keep(
                Act(
                    name=name,
                    args=short,
                    effect=effect,
                    result=result,
                    ok=error is None,
                    error=error,
                    duration_ns=time.monotonic_ns() - began,
                )
            )
        return result

    def _again(self, before: Act) -> Any:
        error = before.error
        if not before.ok:
            error = (
                f"{before.name} failed in this request ({before.error}); it may have happened, and is not tried again"
            )
        self._keep(
            Act(
                name=before.name,
                args=before.args,
                effect=before.effect,
                result=before.result,
                ok=before.ok,
                error=error,
                again=True,
            )
        )
        if error is not None:
            raise Refused(error)
        return before.result

    def _keep(self, act: Act) -> None:
        with self._lock:
            self._all.append(act)
            self._mode.append(act)
            if self._told is not None:
                self._told(len(self._mode) - 1, act)


def told(act: Act) -> str:
    """Return an act as a call, in at most 200 characters."""
    given = ", ".join(f"{key}={settled(value)!r}" for key, value in act.args.items())
    text = sound(f"{act.name}({given})")
    return text if len(text) <= 200 else f"{text[:197]}..."
